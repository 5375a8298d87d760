"""An empty call, one at a time, with one worker."""

from __future__ import annotations

from time import perf_counter

import workloads
from harness.figures import Case, Metric, percentile

CASES = (
    Case(
        name="round-trip",
        title="An empty call, one at a time, 1 worker",
        module=__name__,
        metrics=(Metric("p50", "median"), Metric("p99", "p99")),
        floors=("pyzmq_pair", "unix_socket"),
        weight=1.5,
        slowest=True,
    ),
)


async def measure(contender, seconds):
    async with contender(1) as peer:
        call, times = peer.call, []
        for value in range(20):
            await call(workloads.nothing, value)
        end = perf_counter() + seconds
        while (began := perf_counter()) < end:
            await call(workloads.nothing, 1)
            times.append(perf_counter() - began)
    return {"p50": percentile(times, 50), "p99": percentile(times, 99)}
