"""What workers are doing can be seen at any time, and before one is killed."""

from __future__ import annotations

import logging
import os
import signal

import pytest

import jobs
from offloop import Pool
from offloop.errors import JobTimeout


async def test_a_dump_tells_what_each_worker_does(gate):
    reached, until = gate(), gate()
    async with Pool(2) as pool:
        await pool.ready()
        job = pool.submit(jobs.meet, str(reached), str(until))
        busy = await reached.reached()
        first, second = sorted(await pool.dump(), key=lambda one: one.job is None)
        assert (first.pid, first.job, first.function) == (busy, job.id, "jobs.meet")
        assert first.seconds > 0
        assert "in meet" in first.traceback
        assert f"(pid {busy}) has been running job {job.id} (jobs.meet) for" in str(
            first
        )
        assert (second.job, second.function, second.seconds) == (None, "", 0.0)
        assert "is idle" in str(second)
        assert "_next_message" in second.traceback
        again = await pool.dump()
        assert [one.traceback.count("in meet") for one in again].count(1) == 1
        until.open()
        assert await job == "met"


async def test_an_endless_loop_in_c_is_no_obstacle(gate):
    reached = gate()
    async with Pool(1, grace=0.01) as pool:
        job = pool.submit(jobs.loop_in_c, str(reached))
        await reached.reached()
        (seen,) = await pool.dump()
        assert "in loop_in_c" in seen.traceback
        job.cancel()


@pytest.mark.slow
async def test_a_stopped_worker_does_not_say_and_keeps_nobody(gate):
    async with Pool(1) as pool:
        pid = await pool.run(jobs.pid)
        os.kill(pid, signal.SIGSTOP)
        (seen,) = await pool.dump()
        assert "it does not say: somebody has stopped it" in seen.traceback
        os.kill(pid, signal.SIGCONT)
        assert await pool.run(jobs.pid) == pid, "the signal did no harm"


async def test_a_crash_after_a_dump_still_brings_its_last_words(gate):
    async with Pool(1) as pool:
        await pool.run(jobs.nothing)
        await pool.dump()
        job = pool.submit(jobs.segfault)
        error = await _error_of(job)
        assert error.output.startswith("Fatal Python error: Segmentation fault")


async def test_a_worker_that_hangs_speaks_before_it_is_killed(gate, caplog):
    reached = gate()
    caplog.set_level(logging.WARNING, "offloop")
    async with Pool(1, grace=0.02) as pool:
        await pool.run(jobs.nothing)
        job = pool.options(run_timeout=0.2).submit(jobs.loop_in_c, str(reached))
        pid = await reached.reached()
        assert isinstance(await _error_of(job), JobTimeout)
        assert await pool.run(jobs.pid) != pid
    (record,) = caplog.records
    text = record.getMessage()
    assert f"(pid {pid}) is killed: job {job.id} ran out of time and did not" in text
    assert "in loop_in_c" in text


async def test_inline_there_is_nobody_to_ask():
    async with Pool(engine="inline") as pool:
        assert await pool.dump() == []


async def _error_of(job):
    try:
        await job
    except Exception as error:
        return error
    raise AssertionError("unreachable: it fails")
