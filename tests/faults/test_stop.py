"""A pool ends in bounded time with any job inside, in the way that it is told to."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time

import psutil
import pytest

import jobs
import jobs_odd
from offloop import Pool
from offloop.errors import PoolClosed, WorkerLost

JOBS = {
    "python": jobs.loop_in_python,
    "c": jobs.loop_in_c,
    "swallows": jobs.swallow_exceptions,
}


async def test_stop_lets_jobs_end_within_the_deadline(gate):
    reached, until = gate(), gate()
    pool = await Pool(1).start()
    job = pool.submit(jobs.meet, str(reached), str(until))
    await reached.reached()
    waiting = pool.submit(jobs.add, 1, 1)
    stopping = asyncio.ensure_future(pool.stop(60))
    await asyncio.sleep(0)
    with pytest.raises(PoolClosed):
        pool.submit(jobs.nothing)
    until.open()
    assert (await job, await waiting) == ("met", 2)
    assert await stopping == 0
    assert not pool.is_open
    assert await pool.stop(60) == 0, "a second time is harmless"


async def test_stop_cancels_what_is_left_at_the_deadline(gate):
    reached = gate()
    pool = await Pool(1, grace=0.02).start()
    job = pool.submit(jobs.loop_in_python, str(reached))
    await reached.reached()
    waiting = [pool.submit(jobs.nothing) for _ in range(3)]
    assert await pool.stop(deadline=0.01) == 4
    assert all(one.cancelled() for one in [job, *waiting])
    with pytest.raises(ValueError, match="deadline"):
        await pool.stop(-1)


async def test_a_pool_that_was_not_started_can_be_stopped_and_killed():
    for end in (Pool.stop, Pool.kill):
        pool = Pool(1)
        await end(pool)
        with pytest.raises(PoolClosed):
            await pool.start()


@pytest.mark.slow
@pytest.mark.parametrize("kind", JOBS)
async def test_kill_waits_for_no_job(kind, gate):
    """Not even for a grace of a minute, which `close` would give."""
    reached = gate()
    pool = await Pool(1, grace=60).start()
    job = pool.submit(JOBS[kind], str(reached))
    await reached.reached()
    began = time.monotonic()
    await pool.kill()
    assert time.monotonic() - began < 30
    assert job.cancelled()
    await pool.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    [
        *JOBS.values(),
        jobs.loop_in_coroutine,
        jobs_odd.ignore_signals,
        jobs_odd.stop_itself,
    ],
)
async def test_close_waits_for_no_job_for_long(function, gate):
    reached = gate()
    pool = await Pool(1, grace=0.02).start()
    job = pool.submit(function, str(reached))
    await reached.reached()
    async with asyncio.timeout(30):
        await pool.close()
    assert job.cancelled()


@pytest.mark.parametrize("way", ["drain", "stop", "close"])
async def test_kill_ends_another_ending_that_is_under_way(way, gate):
    reached = gate()
    pool = await Pool(1, grace=60).start()
    job = pool.submit(jobs.loop_in_c, str(reached))
    await reached.reached()
    ending = asyncio.ensure_future(getattr(pool, way)())
    for _ in range(3):  # it waits for the job, or for the worker, now
        await asyncio.sleep(0)
    await pool.kill()
    await ending
    assert job.cancelled()


@pytest.mark.parametrize("way", ["drain", "close", "stop", "kill", "forkserver"])
async def test_children_of_the_program_are_neither_ended_nor_reaped(way, gate):
    def start(code):
        command = ["sh", "-c", f"read line; exit {code}"]
        return subprocess.Popen(command, stdin=subprocess.PIPE)

    reached, until = gate(), gate()
    with start(3) as before, start(4) as ended:
        pool = await Pool(1, grace=0.02).start()
        job = pool.submit(jobs.meet, str(reached), str(until))
        worker = psutil.Process(await reached.reached())
        with start(5) as after:
            ended.stdin.close()
            zombie = os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT
            await asyncio.to_thread(os.waitid, *zombie)
            if way == "forkserver":
                worker.parent().kill()
                with pytest.raises(WorkerLost):
                    await job
                await pool.run(jobs.nothing)
            elif way == "drain":
                until.open()
            how = {"forkserver": "close"}.get(way, way)
            await getattr(pool, how)(*([0] if way == "stop" else []))
            assert before.poll() is after.poll() is None
            for child, code in ((before, 3), (ended, 4), (after, 5)):
                child.stdin.close()
                assert child.wait() == code


async def test_two_that_close_a_pool_wait_for_the_same_end():
    pool = await Pool(1).start()
    await asyncio.gather(pool.close(), pool.close(), pool.stop(1))


async def test_inline_pools_can_be_stopped_and_killed():
    pool = await Pool(engine="inline").start()
    job = pool.submit(jobs.add, 1, 1)
    assert await pool.stop(60) == 0
    assert await job == 2
    pool = await Pool(engine="inline").start()
    job = pool.submit(jobs.add, 1, 1)
    await pool.kill()
    assert job.cancelled()
