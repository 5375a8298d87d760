"""Workers that die again and again: few starts, a clear state, and a way back."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time

import pytest

import jobs
from offloop import Pool, supervisor
from offloop.errors import StartError


class Clock:
    """The supervisor's time, which a test can let pass; the processes are real."""

    def __init__(self):
        self.ahead = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead

    def pass_until_due(self, pool):
        """Let the time come at which the next worker starts, if none is starting."""
        watched = pool._engine._supervisor
        due = watched._supervision.next_due()
        left = 0.0 if due is None else due - self.monotonic()
        if left > 0.0 and not watched._supervision.stats().starting:
            self.ahead += left
            watched._arm()


@pytest.fixture
def clock(monkeypatch):
    one = Clock()
    monkeypatch.setattr(supervisor, "time", one)
    return one


class Seen:
    """The events of one pool: their numbers, and each kind's in their order."""

    def __init__(self, pool, *kinds):
        self.events = {kind: asyncio.Queue() for kind in kinds}
        for kind, queue in self.events.items():
            pool.on(kind, queue.put_nowait)

    async def next(self, kind):
        async with asyncio.timeout(60):
            return await self.events[kind].get()


async def test_workers_that_cannot_start_any_more(tmp_path, clock):
    """Six deaths within the period are one too many for two places; then one a try."""
    cause = tmp_path / "cause"
    options = {"initializer": jobs.fail_while, "initargs": (str(cause),)}
    async with Pool(2, **options) as pool:
        seen = Seen(pool, "worker_ended", "pool_gave_up", "pool_recovered")
        await pool.ready()
        assert pool.stats().failure == ""
        cause.touch()
        for worker in pool._engine._supervisor.ready_workers:
            os.kill(worker.pid, signal.SIGSEGV)
        reasons = []
        for _ in range(6):
            reasons.append((await seen.next("worker_ended")).reason)
            if not pool.stats().failure:
                clock.pass_until_due(pool)
        assert sorted(reasons) == ["crashed"] * 2 + ["start-failed"] * 4
        told = await seen.next("pool_gave_up")
        assert "no database today" in told.output
        stats = pool.stats()
        assert stats.failure == told.reason
        assert "unasked deaths within 30 s: 6" in stats.failure
        assert stats.workers == 0
        assert stats.workers_started <= 8
        with pytest.raises(StartError, match="no database today"):
            pool.submit(jobs.nothing)

        if stats.workers_started == 8:  # two were starting at the moment of giving up
            await seen.next("worker_ended")
        started = pool.stats().workers_started
        clock.pass_until_due(pool)  # a minute: one worker is tried
        await seen.next("worker_ended")
        await seen.next("pool_gave_up")
        assert pool.stats().workers_started == started + 1

        cause.unlink()
        clock.pass_until_due(pool)
        await seen.next("pool_recovered")
        await pool.ready()
        assert await pool.run(jobs.add, 1, 2) == 3
        stats = pool.stats()
        assert (stats.failure, stats.workers) == ("", 2)
        assert stats.workers_started == started + 3


async def test_workers_that_die_soon_after_they_are_ready(gate, clock):
    death = gate()
    options = {"initializer": jobs.die_when_told, "initargs": (str(death),)}
    pool = Pool(1, **options)
    seen = Seen(pool, "worker_ready", "worker_ended", "pool_gave_up")
    async with pool:
        for _ in range(6):
            await seen.next("worker_ready")
            death.open(1)
            ended = await seen.next("worker_ended")
            assert (ended.reason, ended.exitcode) == ("crashed", 3)
            if not pool.stats().failure:
                clock.pass_until_due(pool)
        told = await seen.next("pool_gave_up")
        assert told.reason == pool.stats().failure
        assert pool.stats().workers_started == 6
        with pytest.raises(StartError, match="exited with code 3"):
            await pool.run(jobs.nothing)
        clock.pass_until_due(pool)
        await seen.next("worker_ready")
        assert await pool.run(jobs.add, 1, 2) == 3
        assert (pool.stats().failure, pool.stats().workers_started) == ("", 7)


async def test_a_program_without_room_for_another_worker(clock):
    """A table of descriptors that is full is a failed start like any other."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with Pool(1) as pool:
        seen = Seen(pool, "pool_gave_up", "pool_recovered")
        victim = await pool.run(jobs.pid)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # and 0 to 2 are taken
        try:
            os.kill(victim, signal.SIGSEGV)
            while not pool.stats().failure:
                clock.pass_until_due(pool)
                await asyncio.sleep(0)
            told = await seen.next("pool_gave_up")
            assert "no room for another worker" in told.output
            assert "Too many open files" in told.output
            assert pool.stats().exits == {"crashed": 1, "start-failed": 5}
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        clock.pass_until_due(pool)
        await seen.next("pool_recovered")
        assert await pool.run(jobs.add, 1, 2) == 3
