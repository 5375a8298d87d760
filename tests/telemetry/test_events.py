"""A pool tells of everything that happens in it, to those who ask, and to nobody else.

Each scene makes a pool do something; the last tests compare the list of events with
what the scenes made it send, and with the page that describes them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import re
import signal
from pathlib import Path

import pytest

import blocking
import jobs
from offloop import Pool, Recycle, watch_loop
from offloop.errors import (
    JobTimeout,
    PoisonJob,
    PoolFull,
    Quarantined,
    StartError,
    WorkerLost,
)
from offloop.telemetry import events

PAGE = Path(__file__).parents[2] / "docs" / "events.md"


class Heard:
    """Collects all events of a pool, and waits for one."""

    def __init__(self, pool):
        self.all = []
        self._changed = asyncio.Event()
        pool.on(events.Event, self._hear)

    def _hear(self, event):
        self.all.append(event)
        self._changed.set()

    def of(self, kind):
        return [event for event in self.all if type(event) is kind]

    async def one(self, kind):
        """Wait for the first event of a kind, and return it."""
        async with asyncio.timeout(60):
            while not self.of(kind):
                self._changed.clear()
                await self._changed.wait()
        return self.of(kind)[0]


async def a_life():
    """A pool from its beginning to its end, with a job of each ordinary ending."""
    pool = Pool(1, name="life", max_pending=2, slow_job=1e-9)
    heard = Heard(pool)
    async with pool:
        assert await pool.run(jobs.add, 1, 1) == 2
        with pytest.raises(ValueError, match="bad"):
            await pool.run(jobs.raise_value_error)
        going = [pool.submit(jobs.nothing) for _ in range(2)]
        with pytest.raises(PoolFull):
            pool.submit(jobs.nothing)
        going[1].cancel()
        await going[0]
        await pool.resize(2)
    await heard.one(events.PoolClosed)
    return heard


async def deaths(gate):
    """Jobs that are lost, tried again, poison, and out of time."""
    pool = Pool(1, name="deaths", grace=0.02)
    heard = Heard(pool)
    reached = gate()
    async with pool:
        with pytest.raises(WorkerLost):
            await pool.run(jobs.die_by, signal.SIGKILL)
        with pytest.raises(PoisonJob):
            await pool.options(retries=5).run(jobs.die_by, signal.SIGKILL)
        with pytest.raises(WorkerLost):  # the fifth in a row
            await pool.run(jobs.die_by, signal.SIGKILL)
        with pytest.raises(Quarantined):
            await pool.run(jobs.die_by, signal.SIGKILL)
        again = pool.options(retries=1, retry_on=(ValueError,))
        with pytest.raises(ValueError, match="bad"):
            await again.run(jobs.raise_value_error)
        late = pool.options(run_timeout=0.05)
        with pytest.raises(JobTimeout):
            await late.run(jobs.loop_in_python, str(reached))
        await pool.run(jobs.nothing)
    await heard.one(events.PoolClosed)
    return heard


async def changes():
    """New code, refused and taken; workers that are used up."""
    pool = Pool(1, name="changes", recycle=Recycle(max_jobs=3, jitter=0))
    heard = Heard(pool)
    async with pool:
        with pytest.raises(StartError):
            await pool.reload(jobs.raise_value_error)
        await pool.reload()
        for _ in range(4):
            await pool.run(jobs.nothing)
        await heard.one(events.WorkerRetiring)
    await heard.one(events.PoolClosed)
    return heard


async def trouble():
    """A pool that gives up and, when the cause is gone, recovers; a held loop."""
    pool = Pool(1, name="trouble")
    heard = Heard(pool)
    async with pool:
        supervisor = pool._engine._supervisor
        supervisor._give_up("nothing works")
        assert (await heard.one(events.PoolGaveUp)).reason == "nothing works"
        await pool.reload()
        await heard.one(events.PoolRecovered)
        with watch_loop(0.1):
            blocking.sleep()
            await heard.one(events.LoopBlocked)
    return heard


def check_life(heard):
    kinds = [type(event) for event in heard.all]
    assert kinds[0] is events.PoolOpened
    assert kinds[-1] is events.PoolClosed
    assert {event.pool for event in heard.all} == {"life"}
    first = heard.of(events.WorkerReady)[0]
    assert (first.worker, first.slot) == (1, 0)
    assert first.pid > 0
    assert 0 < first.seconds < 60
    (resized,) = heard.of(events.PoolResized)
    assert (resized.before, resized.after, resized.reason) == (1, 2, "asked")
    assert len(heard.of(events.JobFinished)) == 2
    finished = heard.of(events.JobFinished)[0]
    assert (finished.function, finished.worker, finished.attempts) == ("jobs.add", 1, 1)
    assert 0 < finished.run < 60
    slow = heard.of(events.JobSlow)[0]
    assert (slow.job, slow.run) == (finished.job, finished.run)
    assert len(heard.of(events.JobSlow)) == 3, "those that have run"
    (failed,) = heard.of(events.JobFailed)
    assert repr(failed.error) == "ValueError('bad')"
    (refused,) = heard.of(events.JobRefused)
    assert (refused.function, refused.pending, refused.limit) == ("jobs.nothing", 2, 2)
    assert len(heard.of(events.JobCancelled)) == 1
    assert {one.reason for one in heard.of(events.WorkerEnded)} == {"shutdown"}


def check_deaths(heard, caplog):
    lost, _ = heard.of(events.JobLost)
    assert isinstance(lost.error, WorkerLost)
    (refused,) = heard.of(events.JobQuarantined)
    assert isinstance(refused.error, Quarantined)
    (poison,) = heard.of(events.JobPoisoned)
    assert poison.attempts == 3
    reasons = [one.reason for one in heard.of(events.JobRetried)]
    assert reasons == ["its worker was killed by SIGKILL"] * 2 + ["ValueError: bad"]
    (late,) = heard.of(events.JobTimedOut)
    assert isinstance(late.error, JobTimeout)
    ended = heard.of(events.WorkerEnded)
    crashed = [one for one in ended if one.reason == "crashed"]
    assert len(crashed) == 5
    for one in crashed:
        assert (one.signal, one.exitcode, one.blamed) == ("SIGKILL", None, True)
        assert one.peak_rss > 1_000_000
    assert "timed-out" in {one.reason for one in ended}
    told = [record for record in caplog.records if hasattr(record, "offloop_event")]
    assert sum(record.offloop_event in crashed for record in told) == 5
    assert "worker ended: worker 1, slot 0, pid" in caplog.text
    assert "reason crashed" in caplog.text


def check_changes(heard):
    assert "bad" in heard.of(events.ReloadFailed)[0].error
    assert len(heard.of(events.ReloadBegun)) == 2
    assert heard.of(events.ReloadDone)[0].seconds > 0
    reasons = [one.reason for one in heard.of(events.WorkerRetiring)]
    assert reasons[0] == "reloaded"
    assert "recycled-jobs" in reasons


async def test_an_idle_worker_that_is_killed_is_warned_of(caplog):
    pool = Pool(1)
    heard = Heard(pool)
    async with pool:
        os.kill(await pool.run(jobs.pid), signal.SIGKILL)
        ended = await heard.one(events.WorkerEnded)
        assert not ended.blamed
    assert any(
        record.levelno == logging.WARNING and "signal SIGKILL" in record.getMessage()
        for record in caplog.records
    )


@pytest.mark.slow
async def test_each_event_is_sent_with_what_it_says(gate, caplog):
    life = await a_life()
    check_life(life)
    caplog.set_level(logging.INFO, "offloop")
    died = await deaths(gate)
    check_deaths(died, caplog)
    changed = await changes()
    check_changes(changed)
    troubled = await trouble()
    seen = life.all + died.all + changed.all + troubled.all
    assert {type(event) for event in seen} == set(events.EVENTS)
    declared = [
        kind
        for kind in vars(events).values()
        if isinstance(kind, type) and issubclass(kind, events.Event)
    ]
    public = {kind for kind in declared if not kind.__name__.startswith("_")}
    assert public - {events.Event} == set(events.EVENTS)


def test_each_event_is_documented():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", PAGE.read_text(), re.M)
    documented = {name: re.findall(r"`(\w+)`", text) for name, text in rows}
    common = {one.name for one in dataclasses.fields(events.Event)}
    sent = {
        kind.__name__: [
            one.name for one in dataclasses.fields(kind) if one.name not in common
        ]
        for kind in events.EVENTS
    }
    assert documented == sent


async def test_a_listener_may_leave_and_may_fail(caplog):
    pool = Pool(1)
    names = []

    def fail(event):
        raise LookupError("not my day")

    pool.on("worker_ready", fail)
    stop = pool.on("job_finished", lambda event: names.append(event.function))
    async with pool:
        await pool.run(jobs.add, 1)
        await asyncio.sleep(0)
        job = pool.submit(jobs.nothing)
        await job
        stop()  # also what is on its way does not arrive
        stop()
        await pool.run(jobs.nothing)
        assert events.JobFinished not in pool._listeners.heard
    assert names[0] == "jobs.add"
    assert len(names) <= 2
    assert "a callback for events failed" in caplog.text
    assert "not my day" in caplog.text


def test_wrong_words_are_refused():
    pool = Pool(1)
    with pytest.raises(ValueError, match="no event 'worker_died'; there are: pool_op"):
        pool.on("worker_died", print)
    with pytest.raises(TypeError, match="an event is one of the classes"):
        pool.on(int, print)

    async def callback(event):
        """Would never be awaited."""

    with pytest.raises(TypeError, match="a plain function"):
        pool.on("pool_closed", callback)
    with pytest.raises(TypeError, match="a plain function"):
        pool.on("pool_closed", None)


def test_nothing_is_made_when_nobody_listens(monkeypatch):
    """No event is even built, however often one could be told of."""
    listeners = events.Listeners("quiet")
    listeners.tell(events.JobFinished, nonsense=1)  # would raise if it were made
    listeners.tell(events.WorkerReady, nonsense=1)  # nor is DEBUG enabled
