"""How long the caller's event loop stands still while workers are busy."""

from __future__ import annotations

import asyncio
import time

import numpy as np

import payload_jobs as jobs
import workloads
from harness.ticker import Ticker
from peers import CannotDo

MB = 1024 * 1024
SMALL_JOBS = 50_000


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
    "4 x 16 MB": send_four,
    "128 MB": send_one,
    "small jobs": drain_small_jobs,
    "lists": send_lists,
}
