"""Workers are replaced before they grow too old, and no job notices it."""

from __future__ import annotations

import asyncio
import os

import psutil
import pytest

import jobs
from offloop import Pool
from offloop.options import Recycle
from offloop.telemetry.events import Event

MB = 1_000_000


async def leave(pids):
    """Wait until these processes have gone."""
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 30)
    assert not alive


async def ended(pool, reason):
    """Wait until the pool has heard of a worker that ended for this reason."""
    async with asyncio.timeout(30):
        while reason not in pool.stats().exits:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)


@pytest.mark.slow
async def test_a_leak_never_fills_a_worker_by_more_than_one_job():
    limit, leak = 100 * MB, 5 * MB
    async with Pool(2, recycle=Recycle(max_rss=limit)) as pool:
        going = [pool.submit(jobs.leak, leak) for _ in range(300)]
        held = await asyncio.gather(*going)
        stats = pool.stats()
    assert max(held) <= limit + 1.2 * leak
    assert max(held) > 0.8 * limit, "none left before it was time"
    assert stats.completed == 300
    assert stats.failed == stats.lost == stats.workers_lost == 0
    assert stats.exits.get("recycled-memory", 0) >= 300 * leak // limit


async def test_no_worker_runs_more_jobs_than_it_may():
    async with Pool(2, recycle=Recycle(max_jobs=10, jitter=0.3)) as pool:
        pids = await asyncio.gather(*(pool.run(jobs.pid) for _ in range(200)))
        stats = pool.stats()
    counts = [pids.count(pid) for pid in set(pids)]
    assert sum(counts) == 200
    assert max(counts) <= 10
    assert stats.workers_lost == 0
    assert stats.exits["recycled-jobs"] >= 18


async def test_each_job_may_have_a_worker_of_its_own():
    async with Pool(2, recycle=Recycle(max_jobs=1)) as pool:
        pids = await asyncio.gather(*(pool.run(jobs.pid) for _ in range(20)))
    assert len(set(pids)) == 20


async def test_jobs_behind_the_last_one_go_elsewhere_and_run_once(tmp_path):
    log = tmp_path / "log"
    async with Pool(1, recycle=Recycle(max_jobs=30)) as pool:
        for _ in range(20):  # short jobs share its inbox from now on
            await pool.run(jobs.note_and_add, str(log), -1, 0)
        results = await asyncio.gather(
            *(pool.run(jobs.note_and_add, str(log), n, 1) for n in range(300))
        )
    assert results == [n + 1 for n in range(300)]
    ran = sorted(int(line) for line in log.read_text().split())
    assert ran == [-1] * 20 + list(range(300))


async def test_a_successor_stands_by_before_the_last_job(gate):
    """The second worker is there, and has nothing to do until the first one goes."""
    reached, passed = gate(), gate()
    async with Pool(1, recycle=Recycle(max_jobs=3, jitter=0)) as pool:
        first = await pool.run(jobs.pid)
        await pool.run(jobs.pid)
        busy = pool.submit(jobs.meet, str(reached), str(passed))
        waiting = pool.submit(jobs.pid)
        assert await reached.reached() == first
        while pool.stats().workers_started < 2:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        assert pool.stats().workers == 1
        assert waiting.state == "queued"
        passed.open()
        await busy
        assert await waiting != first
        await leave([first])
        await ended(pool, "recycled-jobs")
        assert pool.stats().exits == {"recycled-jobs": 1}


@pytest.mark.slow
async def test_an_old_worker_is_replaced_while_it_works(gate):
    reached, passed = gate(), gate()
    async with Pool(1, recycle=Recycle(max_age=0.3)) as pool:
        job = pool.submit(jobs.meet, str(reached), str(passed))
        first = await reached.reached()
        second = await pool.run(jobs.pid)  # while the first one still has its job
        assert second != first
        passed.open()
        assert await job == "met"
        await leave([first])
        await ended(pool, "recycled-age")


@pytest.mark.slow
async def test_capacity_never_drops_while_all_are_too_old():
    """Four that reach their age together: each works until another one can."""
    pool = Pool(4, recycle=Recycle(max_age=0.05))
    sizes, busy, enough = [], [], asyncio.Event()

    def look(event):
        stats = pool.stats()
        sizes.append(stats.workers)
        leaving = ("retiring", "stopping")  # they may be several on a busy machine
        busy.append(sum(one.state not in leaving for one in pool.workers()))
        if stats.exits.get("recycled-age", 0) >= 12:
            enough.set()

    async with pool:
        await pool.ready()
        forget = pool.on(Event, look)
        async with asyncio.timeout(60):
            await enough.wait()
        forget()
    assert min(sizes) == 4
    assert max(busy) <= 5, "one after the other"


async def test_memory_that_was_freed_recycles_nobody():
    async with Pool(1, recycle=Recycle(max_rss=150 * MB)) as pool:
        pids = {await pool.run(jobs.fill_and_free, 300 * MB) for _ in range(5)}
        assert len(pids) == 1
        assert pool.stats().exits == {}


async def test_a_leaver_that_hangs_does_not_hold_its_place():
    """An atexit function that never ends: the successor works all the same."""
    async with Pool(1, grace=0.05, recycle=Recycle(max_jobs=1)) as pool:
        first = await pool.run(jobs.hang_at_exit)
        second = await pool.run(jobs.pid)
        assert second != first
        assert psutil.pid_exists(first)
        os.kill(first, 9)
        await leave([first])
