"""`map` of 100,000 small items, by each peer's own map at its best chunk size."""

from __future__ import annotations

from time import perf_counter

import workloads
from harness.figures import CORES, Case, Metric

ITEMS = 100_000

CASES = (
    Case(
        name="map",
        title=f"map of {ITEMS:,} small items, {CORES} workers",
        module=__name__,
        metrics=(Metric("rate", "items a second", "/s"),),
        seconds=2.0,
        slowest=True,
    ),
)


async def measure(contender, seconds):
    """Report the best of three maps, as short ones are.

    Who needs longer than `seconds` for all items is given as many as fit.
    """
    async with contender(CORES) as peer:
        await map_some(peer, 100)
        few = await map_some(peer, 1_000)
        items = max(100, min(ITEMS, int(few * seconds)))
        rates = [await map_some(peer, items) for _ in range(3 if items == ITEMS else 1)]
    return {"rate": max(rates)}


async def map_some(peer, count):
    items = list(range(count))
    began = perf_counter()
    results = await peer.map(workloads.double, items)
    took = perf_counter() - began
    assert results == [2 * item for item in items]
    return count / took
