"""What time limits cost, and whether they hold; and what cancelling costs."""

from __future__ import annotations

import asyncio
import contextlib
from time import perf_counter

import workloads
from harness import flow
from harness.figures import CORES, Case, Metric
from peers import CannotDo

LIMIT = 0.05
LOOP = 1.5  # seconds that a job would run, if nobody stops it
WAITING, SHORT = 500, 0.002  # jobs to be cancelled, and how long each would run

CASES = (
    Case(
        name="limits",
        title="Time limits and cancellation",
        module=__name__,
        metrics=(
            Metric("flow", "calls with a limit, 64 in flight", "/s"),
            Metric("late", "a loop in a job: told after its limit"),
            Metric("free", "worker free after it"),
            Metric("cancel", "cancel a job that waits"),
        ),
        seconds=0.5,
        heavy=False,
    ),
)


async def measure(contender, seconds):
    if contender.batches:
        raise CannotDo("takes jobs in batches only")
    async with contender(CORES) as peer:
        call = peer.call_within
        found = {
            "flow": await flow.rate_of(
                lambda: call(10.0, workloads.nothing, 1), 64, seconds
            )
        }
    async with contender(1) as peer:
        await peer.call(workloads.nothing, 1)
        found["cancel"] = await cancel_many(peer)
        found |= await stop_loop(peer)
    return found


async def cancel_many(peer):
    """Return the seconds that one cancel takes, of jobs behind one that runs.

    With some peers it takes none, because the jobs run all the same.
    """
    jobs = [peer.submit(workloads.wait, SHORT) for _ in range(WAITING)]
    await asyncio.sleep(0.05)
    waiting = [job for job in jobs if not job.done()]
    began = perf_counter()
    for job in waiting:
        job.cancel()
    await asyncio.sleep(0)
    took = perf_counter() - began
    await peer.call(workloads.nothing, 1)
    ran = perf_counter() - began > len(waiting) * SHORT / 2
    return "runs all the same" if ran else took / max(1, len(waiting))


async def stop_loop(peer):
    """Report how late the caller is told, and when the worker takes another job."""
    began = perf_counter()
    with contextlib.suppress(Exception):
        await peer.call_within(LIMIT, workloads.loop, LOOP)
    told = perf_counter() - began - LIMIT
    await peer.call(workloads.nothing, 1)
    free = perf_counter() - began - LIMIT
    stopped = peer.processes and free < LOOP - LIMIT  # a thread cannot be stopped
    return {"late": told, "free": free if stopped else "runs on"}
