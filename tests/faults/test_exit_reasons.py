"""Why a worker ended is told in the same word everywhere: event, figures and log."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

import jobs
from offloop import Pool, Recycle, supervisor
from offloop.core.exits import ExitReason
from offloop.errors import JobTimeout, MemoryLimitExceeded, WorkerLost

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
MB = 1_000_000


def test_each_reason_is_documented():
    section = PAGE.read_text().partition("\n## Why workers end\n")[2]
    rows = re.findall(r"^\| (`[^|]*`) \|", section.partition("\n## ")[0], re.MULTILINE)
    documented = [word for row in rows for word in re.findall(r"`([\w-]+)`", row)]
    assert sorted(documented) == sorted(reason.value for reason in ExitReason)


class Clock:
    """The supervisor's time, of which hours may have passed; the processes are real."""

    def __init__(self):
        self.ahead = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead


@pytest.mark.slow
async def test_each_reason_is_told_in_the_same_word_everywhere(
    tmp_path, gate, caplog, monkeypatch
):
    """One worker after the other, each with an end of its own."""
    clock, cause, ends = Clock(), tmp_path / "cause", asyncio.Queue()
    monkeypatch.setattr(supervisor, "time", clock)
    caplog.set_level(logging.DEBUG, "offloop")
    pool = Pool(
        1,
        grace=0.02,
        memory_limit=600 * MB,
        recycle=Recycle(max_jobs=30, max_age=3600, max_rss=150 * MB, jitter=0.0),
        initializer=jobs.fail_while,
        initargs=(str(cause),),
    )
    pool.on("worker_ended", ends.put_nowait)
    seen, waited_for = [], []

    async def ended(reason):
        """Wait until one has ended so; successors that stood by may end besides."""
        async with asyncio.timeout(60):
            while not seen or seen[-1].reason != reason or seen[-1] in waited_for:
                seen.append(await ends.get())
        waited_for.append(seen[-1])

    async with pool:
        with pytest.raises(WorkerLost, match="SIGSEGV"):
            await pool.run(jobs.die_by, signal.SIGSEGV)
        await ended("crashed")
        with pytest.raises(MemoryLimitExceeded):
            await pool.run(jobs.take, 1000 * MB)
        await ended("out-of-memory")
        with pytest.raises(JobTimeout):
            await pool.options(run_timeout=0.02).run(jobs.loop_in_c, str(gate()))
        await ended("timed-out")
        reached = gate()
        job = pool.submit(jobs.loop_in_c, str(reached))
        await reached.reached()
        job.cancel()
        await ended("cancelled")
        for _ in range(31):
            await pool.run(jobs.nothing)
        await ended("recycled-jobs")
        await pool.run(jobs.leak, 300 * MB)
        await ended("recycled-memory")
        await pool.run(jobs.nothing)
        clock.ahead += 3600
        pool._engine._supervisor._arm()
        await ended("recycled-age")
        await pool.reload()
        await ended("reloaded")
        await pool.resize(2)
        await pool.resize(1)
        await ended("scaled-down")
        cause.touch()
        os.kill(await pool.run(jobs.pid), signal.SIGKILL)
        await ended("crashed")
        await ended("start-failed")
        cause.unlink()
        clock.ahead += 60
        pool._engine._supervisor._arm()
        await pool.ready()
        psutil.Process(await pool.run(jobs.pid)).parent().kill()
        await ended("forkserver-lost")
        await pool.run(jobs.nothing)
    await ended("shutdown")
    await asyncio.sleep(0)
    while not ends.empty():
        seen.append(ends.get_nowait())

    assert {end.reason for end in seen} == {reason.value for reason in ExitReason}
    exits = pool.stats().exits
    exits["reloaded"] -= 1  # one was tried outside of the pool, and is no event
    assert exits == Counter(end.reason for end in seen)
    told = [r.getMessage() for r in caplog.records if hasattr(r, "offloop_event")]
    for end in seen:
        lines = [line for line in told if f"worker ended: worker {end.worker}," in line]
        (line,) = lines
        assert f"reason {end.reason}" in line
    assert seen[0].signal == "SIGSEGV"
    assert any("signal SIGSEGV" in line for line in told)
