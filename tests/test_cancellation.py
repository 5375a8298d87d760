"""Cancellation is asyncio's, in all its ways: a job is stopped, or never runs."""

from __future__ import annotations

import asyncio

import pytest

import jobs
from offloop import Pool


async def by_timeout(call, reached):
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:

        async def let_it_pass():
            await reached.reached()
            limit.reschedule(loop.time())

        passing = loop.create_task(let_it_pass())
        try:
            await call
        finally:
            await passing


async def by_a_task_group_that_fails(call, reached):
    async with asyncio.TaskGroup() as group:
        group.create_task(call)
        await reached.reached()
        raise TimeoutError


async def by_an_outer_task_group(call, reached):
    async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
        inner.create_task(call)
        await reached.reached()
        outer.create_task(asyncio.wait_for(asyncio.Event().wait(), 0))


async def by_gather(call, reached):
    both = asyncio.gather(call, asyncio.Event().wait())
    await reached.reached()
    both.cancel()
    try:
        await both
    except asyncio.CancelledError:
        raise TimeoutError from None


async def in_a_task_group_that_fails(call):
    async with asyncio.TaskGroup() as group:
        group.create_task(call)
        await asyncio.sleep(0)
        raise ValueError


WAYS = [by_timeout, by_a_task_group_that_fails, by_an_outer_task_group, by_gather]


@pytest.mark.slow
@pytest.mark.loops
async def test_a_job_that_runs_is_stopped_in_all_ways_of_asyncio(gate, tmp_path):
    async with Pool(1, grace=10) as pool:
        for number, way in enumerate(WAYS):
            cleaned, reached = tmp_path / str(number), gate()
            call = pool.run(jobs.clean_up_when_stopped, str(reached), str(cleaned))
            with pytest.raises((TimeoutError, ExceptionGroup)):
                await way(call, reached)
            assert await pool.run(jobs.add, 1, 2) == 3
            assert cleaned.exists()
        assert pool.stats().cancelled == len(WAYS)


async def test_what_waits_is_never_run_in_whatever_way_it_is_given_up(gate, tmp_path):
    log, until = tmp_path / "log", gate()
    async with Pool(1) as pool:
        running = pool.submit(jobs.meet, str(gate()), str(until))

        def call():
            return pool.run(jobs.note_and_add, str(log), 1, 1)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(), 0.001)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await call()
        with pytest.raises(ExceptionGroup):
            await in_a_task_group_that_fails(call())
        until.open()
        assert await running == "met"
        assert await pool.run(jobs.note_and_add, str(log), 2, 2) == 4
        assert log.read_text() == "2\n"


@pytest.mark.slow
async def test_ten_thousand_may_be_cancelled_at_once_and_none_of_them_runs(
    gate, tmp_path
):
    log, until = tmp_path / "log", gate()
    async with Pool(1) as pool:
        running = pool.submit(jobs.meet, str(gate()), str(until))
        held = [pool.submit(jobs.note_and_add, str(log), n, 0) for n in range(5_000)]
        tasks = [
            asyncio.create_task(pool.run(jobs.note_and_add, str(log), n, 0))
            for n in range(5_000)
        ]
        await asyncio.sleep(0)
        for one in (*held, *tasks):
            one.cancel()
        await asyncio.wait([*held, *tasks])
        following = pool.submit(jobs.add, 1, 2)
        until.open()
        assert await running == "met"
        assert await following == 3
        assert pool.stats().cancelled == 10_000
        assert not log.exists()
