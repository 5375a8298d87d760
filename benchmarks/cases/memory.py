"""What one more idle worker costs: PSS of all processes, with 2 and with 6 workers."""

from __future__ import annotations

import asyncio

import workloads
from harness.figures import Case, Metric
from harness.pss import Sampler
from peers import CannotDo

FEW, MANY = 2, 6

CASES = (
    Case(
        name="memory",
        title="Memory (PSS) of one more idle worker",
        module=__name__,
        metrics=(Metric("worker", "a worker", "B"),),
        seconds=None,
        heavy=False,
    ),
)


async def measure(contender):
    if not contender.processes:
        raise CannotDo("has no processes")
    sampler = Sampler()
    try:
        few, many = [await take(contender, sampler, number) for number in (FEW, MANY)]
    finally:
        sampler.close()
    return {"worker": (many - few) / (MANY - FEW)}


async def take(contender, sampler, workers):
    """Return the bytes of everything, with so many workers that did something."""
    async with contender(workers) as peer:
        await peer.gather(workloads.wait, [0.1] * workers)
        await peer.gather(workloads.wait, [0.1] * workers)
        await asyncio.sleep(0.5)
        _, _, now = sampler.since_last()
    return now
