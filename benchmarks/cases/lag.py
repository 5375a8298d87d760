"""How long the caller's event loop stands still while workers are busy."""

from __future__ import annotations

import asyncio
import time

import numpy as np

import payload_jobs as jobs
import workloads
from harness.figures import Case, Metric
from harness.ticker import Ticker
from peers import CannotDo

MB = 1024 * 1024
SMALL_JOBS = 50_000

METRICS = (
    Metric("p99", "p99"),
    Metric("worst", "at worst"),
    Metric("done", "jobs a second", "/s"),
)
CASES = tuple(
    Case(
        name=name,
        title=f"How late the loop is, 2 workers, {what}",
        module=__name__,
        metrics=METRICS[: 2 if case == "idle" else 3],
        arguments={"case": case},
        weight=0.7,
        quick=case == "4 x 16 MB",
        heavy=case == "4 x 16 MB",
        timeout=30.0,
    )
    for name, case, what in (
        ("lag-idle", "idle", "nothing to do"),
        ("lag-16MB", "4 x 16 MB", "four arrays of 16 MB always on their way"),
        ("lag-128MB", "128 MB", "one array of 128 MB always on its way"),
    )
)


async def measure(contender, case, seconds):
    """Report the worst lateness, the 99th percentile, and what was done meanwhile."""
    if hasattr(contender, "place"):
        raise CannotDo("is the same as offloop here")
    async with contender(2) as peer:
        await asyncio.gather(*(peer.call(jobs.total, np.ones(1000)) for _ in range(4)))
        ticker = Ticker()
        done = await LOADS[case](peer, ticker, seconds)
        late = sorted(ticker.late)
        return {"worst": late[-1], "p99": late[int(len(late) * 0.99)], "done": done}


async def keep_sending(peer, ticker, fn, arguments, seconds):
    """Send each argument again and again; returns how many jobs a second ended."""

    async def caller(argument):
        calls = 0
        while time.perf_counter() < end:
            await peer.call(fn, argument)
            calls += 1
        return calls

    await peer.call(fn, arguments[0])
    end = time.perf_counter() + seconds
    async with ticker:
        return sum(await asyncio.gather(*map(caller, arguments))) / seconds


async def do_nothing(peer, ticker, seconds):
    async with ticker:
        await asyncio.sleep(seconds)
    return 0


async def send_four(peer, ticker, seconds):
    arrays = [np.ones(16 * MB // 8) for _ in range(4)]
    return await keep_sending(peer, ticker, jobs.total, arrays, seconds)


async def send_one(peer, ticker, seconds):
    arrays = [np.ones(128 * MB // 8)]
    return await keep_sending(peer, ticker, jobs.total, arrays, seconds)


async def send_lists(peer, ticker, seconds):
    lists = [list(range(1_000_000)), [(i, -i) for i in range(100_000)]]
    return await keep_sending(peer, ticker, jobs.count, lists, seconds)


async def drain_small_jobs(peer, ticker, seconds):
    waiting, ended = SMALL_JOBS, asyncio.Event()

    def note_end(job):
        nonlocal waiting
        waiting -= 1
        if not waiting:
            ended.set()

    async with ticker:
        submitted = [
            peer.submit(workloads.nothing, value) for value in range(SMALL_JOBS)
        ]
        for job in submitted:
            job.add_done_callback(note_end)
        ticker.begin()
        began = time.perf_counter()
        await ended.wait()
    return SMALL_JOBS / (time.perf_counter() - began)


LOADS = {
    "idle": do_nothing,
    "4 x 16 MB": send_four,
    "128 MB": send_one,
    "small jobs": drain_small_jobs,
    "lists": send_lists,
}
