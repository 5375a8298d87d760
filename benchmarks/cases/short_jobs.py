"""Jobs of 2 ms: how much of the workers' time is work, and does the loop notice?"""

from __future__ import annotations

import workloads
from harness import flow
from harness.figures import CORES, Case, Metric, percentile
from harness.ticker import Ticker

JOB = 0.002

CASES = (
    Case(
        name="short-jobs",
        title=f"Jobs of 2 ms, {CORES} workers, 64 in flight",
        module=__name__,
        metrics=(
            Metric("share", "of ideal", "share"),
            Metric("p99", "loop late, p99"),
            Metric("worst", "at worst"),
        ),
        heavy=False,
    ),
)


async def measure(contender, seconds):
    async with contender(CORES) as peer:
        async with Ticker() as ticker:
            rate = await flow.rate(peer, workloads.burn, JOB, 64, seconds)
        late = ticker.late
    return {
        "share": rate * JOB / CORES,
        "p99": percentile(late, 99),
        "worst": max(late),
    }
