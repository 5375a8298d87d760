"""From nothing to the first result, in a fresh interpreter."""

from __future__ import annotations

from time import perf_counter

import workloads
from harness.figures import CORES, Case, Metric

CASES = (
    Case(
        name="start",
        title=f"From nothing to the first result, {CORES} workers",
        module=__name__,
        metrics=(Metric("first", "first result"), Metric("whole", "with its import")),
        floors=("fork",),
        seconds=None,
        slowest=True,
    ),
)


async def measure(contender):
    began = perf_counter()
    peer = contender(CORES)
    await peer.start()
    await peer.call(workloads.nothing, 1)
    first = perf_counter() - began
    await peer.close()
    return {"first": first, "whole": first + contender.import_seconds}
