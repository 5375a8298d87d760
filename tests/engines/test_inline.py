"""The inline engine: the same behaviour in this process."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

import jobs
from offloop import Pool, current_job, offload
from offloop.errors import (
    JobTimeout,
    NotOffloadable,
    RemoteError,
    ResultNotEncodable,
)


@pytest.mark.loops
async def test_jobs_run_here():
    async with Pool(engine="inline") as pool:
        assert await pool.run(jobs.pid) == os.getpid()
        job = pool.submit(jobs.add, 1, b=2)
        assert not job.done()
        assert await job == 3
        assert (job.state, job.worker, job.attempts) == ("done", 0, 1)
        assert pool.stats().completed == 2
        await pool.ready()
        await pool.resize(3)


async def test_the_environment_chooses_it(monkeypatch):
    monkeypatch.setenv("OFFLOOP_ENGINE", "inline")
    async with Pool(3) as pool:
        assert await pool.run(jobs.pid) == os.getpid()
    assert await offload(jobs.pid)() == os.getpid()


async def test_arguments_and_results_are_copies():
    async with Pool(engine="inline") as pool:
        values = [1]
        (got,), _ = await pool.run(jobs.echo, values)
        assert got == values
        assert got is not values
        data = bytearray(100_000)
        job = pool.submit(sum, data)
        data[:] = b"\1" * len(data)
        assert await job == 0


async def test_what_cannot_travel_fails_here_too():
    async with Pool(engine="inline") as pool:
        with pytest.raises(NotOffloadable):
            pool.submit(jobs.echo, threading.Lock())
        with pytest.raises(ResultNotEncodable):
            await pool.run(jobs.unpicklable_result)


async def test_errors_arrive_as_from_a_worker():
    async with Pool(engine="inline") as pool:
        with pytest.raises(ValueError, match="bad") as caught:
            await pool.run(jobs.raise_value_error)
        assert "raise_value_error" in str(caught.value.__cause__)
        with pytest.raises(RemoteError):
            await pool.run(jobs.system_exit)
        with pytest.raises(ModuleNotFoundError):
            await pool.run(__import__, "no_such_module")


async def test_an_error_that_is_worth_it_is_tried_again():
    async with Pool(engine="inline") as pool:
        job = pool.options(retries=1, retry_on=ValueError).submit(fail_at_first)
        assert await job == 2


def fail_at_first():
    if current_job().attempt == 1:
        raise ValueError("at first")
    return current_job().attempt


async def test_async_functions_closures_and_map():
    offset = 3
    async with Pool(engine="inline") as pool:
        assert await pool.run(jobs.add_async, 1, 2) == 3
        assert await pool.run(lambda value: value + offset, 1) == 4
        assert [r async for r in pool.map(jobs.add, [1, 2], [3, 4])] == [4, 6]
        assert [r async for r in pool.map(jobs.add_async, [1, 2], [3, 4])] == [4, 6]


async def test_async_errors_and_cancellations():
    async def fail():
        raise KeyError("missing")

    async def cancel_itself():
        raise asyncio.CancelledError

    async with Pool(engine="inline") as pool:
        with pytest.raises(KeyError):
            await pool.run(fail)
        with pytest.raises(RemoteError):
            await pool.run(cancel_itself)
        assert await pool.run(jobs.add, 1, 1) == 2


async def test_a_queued_job_can_be_cancelled_and_a_running_coroutine_too():
    ran = asyncio.Event()
    forever = asyncio.Event()
    events.update(ran=ran, forever=forever)
    async with Pool(engine="inline") as pool:
        job = pool.submit(wait_forever)
        await ran.wait()
        behind = pool.submit(jobs.add, 1, 1)
        behind.cancel()
        job.cancel()
        assert await pool.run(jobs.add, 1, 2) == 3
        assert pool.stats().cancelled == 2


async def test_closing_ends_a_running_coroutine():
    ran = asyncio.Event()
    events.update(ran=ran, forever=asyncio.Event())
    pool = await Pool(engine="inline").start()
    job = pool.submit(wait_forever)
    await ran.wait()
    await pool.close()
    assert job.cancelled()


async def test_timeouts_of_what_waits_and_of_coroutines():
    events.update(ran=asyncio.Event(), forever=asyncio.Event())
    async with Pool(engine="inline") as pool:
        with pytest.raises(JobTimeout, match="run_timeout"):
            await pool.options(run_timeout=0.01).run(wait_forever)
        assert await pool.run(jobs.add, 1, 2) == 3


@pytest.mark.parametrize("begun", [False, True])
async def test_on_cancel_kill_gives_a_job_up_and_goes_on(begun):
    events.update(ran=asyncio.Event(), forever=asyncio.Event())
    async with Pool(engine="inline") as pool:
        job = pool.options(on_cancel="kill").submit(wait_forever)
        if begun:
            await events["ran"].wait()
        job.cancel()
        assert await pool.run(jobs.add, 1, 2) == 3


async def test_a_coroutine_that_does_not_stop_is_given_up():
    events.update(ran=asyncio.Event(), forever=asyncio.Event())
    async with Pool(engine="inline", grace=0.01) as pool:
        with pytest.raises(JobTimeout):
            await pool.options(run_timeout=0.01).run(refuse_to_stop)
        assert await pool.run(jobs.add, 1, 2) == 3
        events["forever"].set()
        await asyncio.sleep(0)


async def refuse_to_stop():
    while True:
        try:
            await wait_forever()
            return
        except asyncio.CancelledError:
            continue


async def test_the_job_knows_itself_and_the_initializer_runs_once():
    async with Pool(
        engine="inline", initializer=jobs.initialize, initargs=("inline",)
    ) as pool:
        assert await pool.run(jobs.initialized) == "inline"
        job = pool.options(timeout=60).submit(jobs.describe_job)
        number, attempt, deadline, worker = await job
        assert (number, attempt, worker) == (job.id, 1, 0)
        assert deadline is not None


async def test_breakpoint_works(monkeypatch):
    seen = []
    monkeypatch.setattr("sys.breakpointhook", lambda: seen.append("here"))
    async with Pool(engine="inline") as pool:
        await pool.run(breakpoint_in_job)
    assert seen == ["here"]


def breakpoint_in_job():
    breakpoint()


#: what `wait_forever` shares with its test: it runs in the same process
events: dict[str, asyncio.Event] = {}


async def wait_forever():
    events["ran"].set()
    await events["forever"].wait()
