"""What a job says of its progress reaches whoever holds the job."""

from __future__ import annotations

import asyncio

import pytest

import jobs
from offloop import Pool, Progress

ENGINES = pytest.mark.parametrize("engine", ["local", "inline"])


@ENGINES
async def test_the_last_report_is_always_told(engine):
    async with Pool(1, engine=engine) as pool:
        job = pool.submit(jobs.report_often, 1000)
        assert job.progress is None
        assert await job == 1000
        assert job.progress == Progress(1000, 1000, "step 1000")


@ENGINES
async def test_updates_come_until_the_end(engine):
    async with Pool(1, engine=engine) as pool:
        job = pool.submit(jobs.report_often, 50)
        seen = [update.done async for update in job.updates()]
        assert job.done()
    assert seen == sorted(set(seen))
    assert seen[-1] == 50


async def test_an_update_comes_while_the_job_runs(lend, gate):
    opened = gate()
    async with lend() as pool:
        job = pool.submit(jobs.report_then_wait, str(opened))
        async with asyncio.timeout(30):
            update = await anext(job.updates())
        assert update == Progress(0.5, None, "half")
        assert not job.done()
        opened.open()
        await job


async def test_several_may_look_and_the_end_wakes_them_all(lend, gate):
    opened = gate()
    async with lend() as pool:
        job = pool.submit(jobs.report_then_wait, str(opened))

        async def watch():
            return [update.done async for update in job.updates()]

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            watchers = [group.create_task(watch()) for _ in range(3)]
            await anext(job.updates())
            opened.open()
    assert [watcher.result() for watcher in watchers] == [[0.5]] * 3


async def test_a_job_that_fails_or_says_nothing_ends_its_updates(lend):
    async with lend() as pool:
        silent = pool.submit(jobs.nothing)
        assert [update async for update in silent.updates()] == []
        failing = pool.submit(jobs.report_and_raise)
        assert [update.done async for update in failing.updates()] == [3]
        with pytest.raises(ValueError, match="after the report"):
            await failing


@pytest.mark.parametrize("works", [jobs.report_twice, jobs.report_twice_in_a_thread])
async def test_the_last_report_before_a_long_silence_is_told_soon(works, gate):
    opened = gate()
    async with Pool(1) as pool:
        job = pool.submit(works, str(opened))
        async with asyncio.timeout(30):
            async for update in job.updates():
                if update.done == 2:
                    break
        assert not job.done()
        assert job.progress == Progress(2, 2, "the long part")
        opened.open()
        await job


async def test_a_thread_of_an_inline_job_reports_too():
    async with Pool(1, engine="inline") as pool:
        job = pool.submit(jobs.report_by_to_thread)
        assert [update.done async for update in job.updates()][-1:] == [7]
        await job


async def test_a_report_must_be_of_numbers(lend):
    async with lend() as pool:
        with pytest.raises(ValueError, match="could not convert"):
            await pool.run(jobs.report_nonsense)
        assert await pool.run(jobs.report_numpy) is None
