"""Jobs on their way in or out: cancelled, late, closed upon, drained, failing."""

from __future__ import annotations

import asyncio
import gc

import numpy as np
import pytest

import jobs
import jobs_payloads as payloads
from offloop import Pool
from offloop.errors import (
    JobTimeout,
    NotOffloadable,
    PoolClosed,
    PoolFull,
    StartError,
)
from waiting import given_back, until, used

MB = 1024 * 1024
LIMIT = 4 * MB
MANY = [0] * 50_000


@pytest.fixture
def slow(gate):
    """An argument whose encoding, in a thread, stops halfway until a gate opens."""
    reached, until_open = gate(), gate()
    # What comes first is enough to send it to a thread.
    argument = [MANY, payloads.Pausing(str(reached), str(until_open))]
    return argument, reached, until_open


async def test_a_job_whose_encoding_takes_long_is_a_job_like_any_other(slow):
    argument, reached, until_open = slow
    async with Pool(1) as pool:
        job = pool.submit(jobs.echo, argument, np.ones(MB))
        await reached.reached()
        assert (job.state, job.attempts, job.worker) == ("queued", 0, None)
        stats = pool.stats()
        assert (stats.pending, stats.queued, stats.submitted) == (1, 1, 1)
        assert await pool.run(jobs.add, 1, 2) == 3  # it is in nobody's way
        until_open.open()
        (there, _), _ = await job
        assert there == [MANY, "paused"]
        stats = pool.stats()
        assert (stats.pending, stats.submitted, stats.completed) == (0, 2, 2)


async def test_cancelling_while_it_is_encoded(slow):
    argument, reached, until_open = slow
    async with Pool(1) as pool:
        job = pool.submit(jobs.echo, argument)
        await reached.reached()
        assert job.cancel()
        assert not job.cancel()
        await asyncio.wait([job])
        await until(lambda: pool.stats().cancelled == 1)
        assert job.state == "cancelled"
        assert pool.stats().pending == 0
        until_open.open()
        assert await pool.run(jobs.add, 1, 2) == 3


async def test_cancelling_the_await_while_it_is_encoded(slow):
    argument, reached, until_open = slow
    async with Pool(1) as pool:
        task = asyncio.create_task(pool.run(jobs.echo, argument))
        await reached.reached()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await until(lambda: pool.stats().cancelled == 1)
        until_open.open()


async def test_cancelling_while_it_is_copied(tmp_path):
    async with Pool(1) as pool:
        array = np.ones(16 * MB)
        file = str(tmp_path / "ran")
        job = pool.submit(payloads.add_in_place, array, 1.0, file, 0)
        assert pool.stats().pending == 1
        job.cancel()
        await asyncio.wait([job])
        await given_back(pool)  # though the job is still known here
        assert job.state == "cancelled"
        assert not (tmp_path / "ran").exists()
        assert await pool.run(payloads.total, array) == [16 * MB]


@pytest.mark.slow
async def test_cancelling_at_any_moment():
    """One slice of the loop later each time: on the way in, out, and between."""
    array = np.ones(2 * MB, "u1")
    async with Pool(1, arena_limit=32 * MB) as pool:
        for turns in range(60):
            task = asyncio.create_task(pool.run(payloads.same, array))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            del task
        assert (await pool.run(payloads.same, array)).sum() == 2 * MB
        stats = pool.stats()
        assert stats.pending == 0
        assert stats.submitted == stats.completed + stats.cancelled
        gc.collect()
        await given_back(pool)


async def test_the_time_limit_counts_while_it_is_encoded(slow):
    argument, reached, until_open = slow
    async with Pool(1) as pool:
        job = pool.options(timeout=0.05).submit(jobs.echo, argument)
        with pytest.raises(
            JobTimeout, match=r"job 1 \(jobs.echo\) took too long"
        ) as got:
            await job
        assert (got.value.kind, got.value.limit) == ("timeout", 0.05)
        assert job.state == "failed"
        assert pool.stats().timed_out == 1
        await reached.reached()
        until_open.open()


async def test_the_time_limit_counts_while_it_waits_for_memory():
    async with Pool(1, arena_limit=LIMIT) as pool:
        held = pool.empty(3 * MB, "u1")
        job = pool.options(timeout=0.05).submit(len, list(range(MB // 2)))
        with pytest.raises(JobTimeout):
            await job
        assert used(pool) == held.nbytes


async def test_a_list_waits_for_memory_and_goes_when_there_is_some():
    async with Pool(1, arena_limit=LIMIT) as pool:
        held = pool.empty(3 * MB, "u1")
        job = pool.submit(len, list(range(MB // 2)))
        await until(lambda: pool._engine._transfers._memory_waiters)
        assert not job.done()
        del held
        assert await job == MB // 2
        held = pool.empty(3 * MB, "u1")
        raising = pool.options(on_full="raise").submit(len, list(range(MB // 2)))
        with pytest.raises(PoolFull):
            await raising
        assert raising.state == "failed"
        assert held.nbytes == 3 * MB


async def test_what_fails_in_a_thread_is_the_jobs_error():
    async with Pool(1) as pool:
        job = pool.submit(jobs.echo, [*MANY, (n for n in ())])
        with pytest.raises(NotOffloadable, match="generator"):
            await job
        assert pool.stats().failed == 1
        assert pool.stats().pending == 0


async def test_max_pending_counts_what_is_on_its_way(slow):
    argument, reached, until_open = slow
    async with Pool(1, max_pending=1) as pool:
        job = pool.submit(jobs.echo, argument)
        await reached.reached()
        with pytest.raises(PoolFull):
            pool.submit(jobs.add, 1, 2)
        waiting = asyncio.create_task(pool.run(jobs.add, 1, 2))
        until_open.open()
        assert await waiting == 3
        await job


async def test_draining_waits_for_what_is_on_its_way_in_and_out(slow):
    argument, reached, until_open = slow
    results = []
    async with Pool(1) as pool:
        for sent in (argument, np.ones(4 * MB), b"x" * 4 * MB):
            job = pool.submit(payloads.same, sent)
            job.add_done_callback(lambda job: results.append(len(job.result())))
        await reached.reached()
        until_open.open()
    assert sorted(results) == [2, 4 * MB, 4 * MB]


async def test_closing_while_something_is_encoded(slow):
    argument, reached, until_open = slow
    pool = await Pool(1).start()
    job = pool.submit(jobs.echo, argument)
    putting = asyncio.create_task(pool.put(MANY * 2 + [b"x" * MB]))
    await reached.reached()
    closing = asyncio.create_task(pool.close())
    await asyncio.wait([job])
    assert job.cancelled()
    until_open.open()  # a step of a thread is waited for, and the loop goes on
    await closing
    await asyncio.wait([putting])
    assert putting.exception() is None or type(putting.exception()) is PoolClosed


async def test_closing_while_much_is_copied_both_ways():
    for turns in range(0, 24, 4):
        pool = await Pool(1, arena_limit=128 * MB).start()
        array = np.ones(4 * MB, "u1")
        sent = [pool.submit(payloads.same, array) for _ in range(6)]
        putting = [asyncio.create_task(pool.put(array)) for _ in range(2)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await pool.close()
        await asyncio.wait([*sent, *putting])
        for job in sent:
            assert job.cancelled() or job.result().sum() == 4 * MB
        for put in putting:
            assert type(put.exception()) in (PoolClosed, type(None))


async def test_a_pool_that_gives_up_fails_what_is_on_its_way(slow):
    argument, reached, until_open = slow
    async with Pool(1) as pool:
        job = pool.submit(jobs.echo, argument)
        await reached.reached()
        pool._engine._fail(StartError("no workers today"))
        until_open.open()
        with pytest.raises(StartError, match="no workers today"):
            await job
        assert job.state == "failed"


async def test_many_large_ones_at_once():
    async with Pool(2, arena_limit=64 * MB) as pool:
        runs = [
            pool.run(payloads.same, np.full(3 * MB, value, "u1")) for value in range(40)
        ]
        for run in asyncio.as_completed(runs):
            result = await run
            assert result[0] == result[-1]
            del result
