"""Spare workers stand by, and work when somebody dies, without a start in between."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

import jobs
from offloop import Pool


def ready(pool):
    """Return a queue of the pids of workers as they get ready."""
    pids = asyncio.Queue()
    pool.on("worker_ready", lambda event: pids.put_nowait(event.pid))
    return pids


async def test_a_spare_takes_the_place_of_a_worker_that_was_killed(gate):
    reached = gate()
    pool = Pool(1, spare_workers=1)
    pids = ready(pool)
    async with pool:
        worker, spare = await pids.get(), await pids.get()
        assert await pool.run(jobs.pid) == worker, "a spare gets no jobs"
        assert pool.stats().workers == 1
        job = pool.options(retries=1).submit(jobs.loop_in_python, str(reached))
        assert await reached.reached() == worker
        os.kill(worker, signal.SIGKILL)
        assert await reached.reached() == spare
        third = await pids.get()
        job.cancel()
        assert await pool.run(jobs.pid) == third


async def test_a_pool_of_nobody_is_there_at_once_with_a_spare():
    pool = Pool(2, min_workers=0, spare_workers=1)
    pids = ready(pool)
    async with pool:
        spare = await pids.get()
        assert pool.stats().workers == 0
        assert await pool.run(jobs.pid) == spare


async def test_a_spare_that_dies_is_replaced():
    pool = Pool(1, spare_workers=1)
    pids = ready(pool)
    async with pool:
        worker, spare = await pids.get(), await pids.get()
        os.kill(spare, signal.SIGKILL)
        another = await pids.get()
        assert await pool.run(jobs.pid) == worker
        os.kill(worker, signal.SIGKILL)
        await pids.get()
        assert await pool.run(jobs.pid) == another


@pytest.mark.slow
async def test_spares_get_new_code_too():
    pool = Pool(1, spare_workers=2)
    pids = ready(pool)
    async with pool:
        old = {await pids.get() for _ in range(3)}
        await pool.reload()
        worker = await pool.run(jobs.pid)
        assert worker not in old
        new = {worker}
        while len(new) < 3:
            new.add(await pids.get())
        assert not new & old
        os.kill(worker, signal.SIGKILL)
        assert await pool.run(jobs.pid) in new
    assert set(pool.stats().exits) <= {"reloaded", "crashed", "shutdown"}
