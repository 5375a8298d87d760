"""Empty calls a second, with many in flight."""

from __future__ import annotations

import workloads
from harness import flow
from harness.figures import CORES, Case, Metric

#: key, label, workers, calls in flight
FLOWS = (
    ("one", "64 in flight, 1 worker", 1, 64),
    ("many", f"64 in flight, {CORES} workers", CORES, 64),
    ("crowd", f"1,000 in flight, {CORES} workers", CORES, 1000),
)

CASES = (
    Case(
        name="throughput",
        title="Empty calls a second",
        module=__name__,
        metrics=tuple(Metric(key, label, "/s") for key, label, *_ in FLOWS),
        floors=("pyzmq_pair", "futures"),
        seconds=0.5,
        weight=2.0,
        slowest=True,
    ),
)


async def measure(contender, seconds):
    found = {}
    for number in dict.fromkeys(workers for _, _, workers, _ in FLOWS):
        async with contender(number) as peer:
            for key, _, workers, in_flight in FLOWS:
                if workers == number:
                    found[key] = await flow.rate(
                        peer, workloads.nothing, 1, in_flight, seconds
                    )
    return found
