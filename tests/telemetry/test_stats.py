"""`pool.stats()` tells what has become of the calls of each function."""

from __future__ import annotations

import asyncio
import json
import signal

import pytest

import jobs
from offloop import Pool
from offloop.errors import JobTimeout, PoolFull, WorkerLost
from offloop.telemetry import events, tallies
from offloop.telemetry.tallies import Tallies

#: figures of a function that are also figures of its pool
COUNTS = ("completed", "failed", "cancelled", "timed_out", "lost", "retried", "refused")


def check_sums(stats):
    """What is told of functions adds up to what is told of the pool."""
    for count in COUNTS:
        single = sum(getattr(one, count) for one in stats.functions.values())
        assert single == getattr(stats, count), count


async def test_each_function_has_figures_of_its_own(gate):
    reached, leave = gate(), gate()
    async with Pool(1, max_pending=10, grace=0.05) as pool:
        assert await pool.run(jobs.add, 1, 1) == 2
        with pytest.raises(ValueError, match="bad"):
            await pool.run(jobs.raise_value_error)
        with pytest.raises(WorkerLost):
            await pool.options(retries=1).run(jobs.die_by, signal.SIGKILL)
        with pytest.raises(JobTimeout):
            await pool.options(run_timeout=0.05).run(jobs.loop_in_python, str(reached))
        job = pool.submit(jobs.wait_for, str(leave))
        waiting = [pool.submit(jobs.add, n, n) for n in range(9)]
        with pytest.raises(PoolFull):
            pool.submit(jobs.nothing)
        waiting[0].cancel()
        leave.open()
        await job
        assert await asyncio.gather(*waiting[1:]) == [2, 4, 6, 8, 10, 12, 14, 16]
        stats = pool.stats()
    check_sums(stats)
    by_name = stats.functions
    added = by_name["jobs.add"]
    assert (added.completed, added.cancelled, added.failed) == (9, 1, 0)
    assert added.run.count == added.wait.count == added.transfer.count == 9
    assert by_name["jobs.raise_value_error"].failed == 1
    assert by_name["jobs.raise_value_error"].run.count == 1
    lost = by_name["jobs.die_by"]
    assert (lost.lost, lost.retried, lost.run.count) == (1, 1, 0)
    assert by_name["jobs.loop_in_python"].timed_out == 1
    assert by_name["jobs.nothing"].refused == 1
    told = json.loads(json.dumps(stats.as_dict()))
    assert told["functions"]["jobs.add"]["run"]["count"] == 9
    assert "functions" not in stats.totals()


async def test_workers_tell_what_they_do(gate):
    reached, leave = gate(), gate()
    async with Pool(2, spare_workers=1) as pool:
        await pool.ready()
        job = pool.submit(jobs.meet, str(reached), str(leave))
        pid = await reached.reached()
        workers = pool.workers()
        busy, idle = sorted(workers[:2], key=lambda one: one.state)
        assert [one.slot for one in workers] == [0, 1, -1][: len(workers)]
        assert (busy.state, busy.pid, busy.job, busy.jobs) == ("busy", pid, job.id, 1)
        assert busy.function == "jobs.meet"
        assert busy.seconds > busy.running > 0
        assert (idle.state, idle.job, idle.jobs, idle.function) == ("idle", None, 0, "")
        assert json.loads(json.dumps(busy.as_dict()))["worker"] == busy.worker
        stats = pool.stats()
        assert (stats.busy, stats.idle) == (1, 1)
        assert stats.arena_limit > 0 == stats.arena_used
        leave.open()
        await job
        await pool.run(len, memoryview(bytes(100_000)))
    assert pool.workers() == []


async def test_figures_are_those_of_the_jobs_timings():
    async with Pool(1) as pool:
        calls = [pool.submit(jobs.add, n) for n in range(3)]
        for call in calls:  # two of them wait for the first
            await call
        stats = pool.stats().functions["jobs.add"]
    timings = [call.timings for call in calls]
    near = {"rel": 0.02, "abs": 1e-6}
    assert stats.run.largest == max(one.run for one in timings)
    assert stats.run.total == pytest.approx(sum(one.run for one in timings))
    assert stats.wait.largest == pytest.approx(max(one.queued for one in timings))
    longest = max(one.sent + one.returned for one in timings)
    assert stats.transfer.largest == pytest.approx(longest, **near)
    assert stats.wait.total == pytest.approx(sum(one.queued for one in timings))


async def test_all_of_a_burst_are_counted(gate):
    """Some of many short jobs are asked for all; longer ones are asked each."""
    leave = gate()
    async with Pool(1) as pool:
        slow = pool.submit(jobs.wait_for, str(leave))
        burst = [pool.submit(jobs.add, n) for n in range(1500)]
        others = [pool.submit(jobs.echo, n) for n in range(3)]
        burst += [pool.submit(jobs.add, n) for n in range(1500)]
        leave.open()
        await asyncio.gather(slow, *burst, *others)
        stats = pool.stats()
    check_sums(stats)
    added = stats.functions["jobs.add"]
    assert added.completed == 3000
    assert added.run.count == added.wait.count == added.transfer.count == 3000
    timings = [job.timings for job in burst]
    long = [one.run for one in timings if one.run >= 0.001]
    assert added.run.largest >= max(long, default=0.0)
    assert 0 < added.run.largest <= max(one.run for one in timings)
    assert stats.functions["jobs.echo"].run.count == 3
    assert stats.functions["jobs.wait_for"].run.largest == slow.timings.run


async def test_a_slow_job_is_warned_of_and_told(caplog):
    heard = []
    pool = Pool(1, slow_job=1e-6)
    pool.on(events.JobSlow, heard.append)
    async with pool, Pool(1, slow_job=3600) as other:
        slow = pool.submit(jobs.nothing)
        await slow
        with pytest.raises(ValueError, match="bad"):
            await pool.run(jobs.raise_value_error)
        await other.run(jobs.add, 1)
        stats, others = pool.stats().functions, other.stats().functions
    assert [event.function for event in heard] == [
        "jobs.nothing",
        "jobs.raise_value_error",
    ]
    assert (heard[0].job, heard[0].run) == (slow.id, slow.timings.run)
    assert stats["jobs.nothing"].slow == stats["jobs.raise_value_error"].slow == 1
    assert others["jobs.add"].slow == 0
    told = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert len(told) == 2
    assert "job slow" in told[0]
    assert "jobs.nothing" in told[0]


async def test_what_ends_on_its_way_in_is_counted():
    """A call whose arguments take a while to copy, and which is cancelled meanwhile."""
    heard = []
    pool = Pool(1)
    pool.on(events.JobCancelled, heard.append)
    async with pool:
        job = pool.submit(len, bytes(50_000_000))
        job.cancel()
        await asyncio.wait([job])
        await asyncio.sleep(0)
        stats = pool.stats()
    check_sums(stats)
    assert stats.functions["len"].cancelled == 1
    assert [event.job for event in heard] == [job.id]


def test_functions_without_end_are_counted_together(monkeypatch):
    monkeypatch.setattr(tallies, "_MOST", 2)
    counted = Tallies()
    for name in "abcda":
        counted.of(name).completed += 1
    assert {name: one.completed for name, one in counted.stats().items()} == {
        "a": 2,
        "b": 1,
        tallies.OTHERS: 2,
    }
