"""The size of a pool follows the work, and no job is lost by it."""

from __future__ import annotations

import asyncio

import pytest

import jobs
from offloop import Pool


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0.001)


async def test_a_pool_may_begin_with_nobody():
    async with Pool(4, min_workers=0) as pool:
        assert pool.stats().workers_started == 0
        await pool.ready()
        assert await pool.run(jobs.add, 1, 1) == 2
        assert pool.stats().workers == 1


async def test_jobs_that_wait_bring_more_workers_and_no_more_than_allowed(gate):
    reached, passed = gate(), gate()
    async with Pool(3, min_workers=1) as pool:
        going = [pool.submit(jobs.meet, str(reached), str(passed)) for _ in range(9)]
        await until(lambda: pool.stats().workers == 3)
        assert pool.stats().in_flight == 3
        passed.open()
        assert await asyncio.gather(*going) == ["met"] * 9
        assert pool.stats().workers_started == 3


async def test_short_jobs_need_no_more_workers():
    async with Pool(4, min_workers=1) as pool:
        for _ in range(200):
            await pool.run(jobs.add, 1, 1)
        assert pool.stats().workers_started == 1


@pytest.mark.slow
async def test_idle_workers_go_and_come_back(gate):
    reached, passed = gate(), gate()
    async with Pool(3, min_workers=1, idle_timeout=0.2) as pool:
        going = [pool.submit(jobs.meet, str(reached), str(passed)) for _ in range(3)]
        await until(lambda: pool.stats().workers == 3)
        passed.open()
        await asyncio.gather(*going)
        await until(lambda: pool.stats().workers == 1)
        await until(lambda: pool.stats().exits == {"scaled-down": 2})
        again = gate()
        going = [pool.submit(jobs.meet, str(reached), str(again)) for _ in range(3)]
        await until(lambda: pool.stats().workers == 3)
        again.open()
        await asyncio.gather(*going)


@pytest.mark.slow
async def test_who_works_stays_while_others_are_idle(gate):
    reached, passed = gate(), gate()
    gone = set()
    pool = Pool(2, idle_timeout=0.2)
    pool.on("worker_ended", lambda event: gone.add(event.pid))
    async with pool:
        first, second = (
            pool.submit(jobs.meet, str(reached), str(passed)) for _ in range(2)
        )
        await until(lambda: pool.stats().workers == 2)
        passed.open()
        await asyncio.gather(first, second)
        stays, never = gate(), gate()
        job = pool.submit(jobs.meet, str(stays), str(never))
        busy = await stays.reached()
        await until(lambda: gone)
        assert pool.stats().workers == 1
        never.open()
        assert await job == "met"
        assert busy not in gone
        await until(lambda: pool.stats().workers == 0)
        assert await pool.run(jobs.add, 1, 1) == 2


async def test_resizing_changes_the_bound(gate):
    reached, passed = gate(), gate()
    async with Pool(1, min_workers=1) as pool:
        going = [pool.submit(jobs.meet, str(reached), str(passed)) for _ in range(4)]
        await pool.resize(2)
        await until(lambda: pool.stats().workers == 2)
        await pool.resize(1)
        passed.open()
        assert await asyncio.gather(*going) == ["met"] * 4
        await until(lambda: pool.stats().workers == 1)


async def test_lost_jobs_bring_a_worker_back(tmp_path):
    async with Pool(2, min_workers=0, retries=1) as pool:
        assert await pool.run(jobs.die_first_time, str(tmp_path / "died")) == 2


async def test_who_waits_for_workers_that_are_not_wanted_any_more_goes_on():
    async with Pool(1) as pool:
        more = asyncio.ensure_future(pool.resize(3))
        await asyncio.sleep(0)
        await pool.resize(1)
        await more
