"""What a job leaves behind that was stopped or died: where it was, and what it said."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import traceback

import pytest

import jobs
from offloop import Pool
from offloop.engines import late
from offloop.errors import JobTimeout, PoisonJob, WorkerLost

ENDLESS = {
    "python": jobs.loop_in_python,
    "c": jobs.loop_in_c,
    "coroutine": jobs.loop_in_coroutine,
    "swallows": jobs.swallow_exceptions,
}


async def failure(job):
    """Return the error that a job ends with."""
    try:
        await job
    except Exception as error:
        return error
    raise AssertionError("unreachable: it fails")


@pytest.mark.slow
async def test_a_job_that_is_out_of_time_says_where_it_was(gate):
    """Polite or not, in C or not: the caller gets the frames, and at once."""
    async with Pool(1, grace=0.1) as pool:
        for kind, endless in ENDLESS.items():
            await pool.run(jobs.nothing)
            timed = pool.options(run_timeout=0.3)
            reached = gate()
            if kind == "coroutine":
                job = timed.submit(endless, str(reached))
            else:
                job = timed.submit(jobs.print_then, kind, endless, str(reached))
            pid = await reached.reached()
            error = await failure(job)
            assert isinstance(error, JobTimeout), kind
            lines = error.where.splitlines()
            assert any(line.endswith(f" in {endless.__name__}") for line in lines), kind
            assert not any("/src/offloop/" in line for line in lines), kind
            assert (error.worker, error.pid) == (job.worker, pid)
            assert error.peak_rss > 1_000_000
            assert f"job {job.id} is FAILED" in error.story
            if kind == "coroutine":
                assert lines[-1].endswith(" in loop_in_coroutine")
            else:
                assert lines[-1].endswith(" in print_then")
                assert error.output.splitlines()[-3:] == [
                    f"{kind} to stdout",
                    f"{kind} to stderr",
                    f"{kind} by logging",
                ]
                told = "".join(traceback.format_exception(error))
                assert f"in {endless.__name__}" in told
                assert f"{kind} by logging" in told
            assert endless.__name__ not in str(error).partition(") ")[2]
            again = pickle.loads(pickle.dumps(error))
            assert (again.where, again.__notes__) == (error.where, error.__notes__)
        assert pool.stats().timed_out == len(ENDLESS)


async def test_a_deadline_since_submission_says_so_too(gate):
    reached = gate()
    async with Pool(1, grace=0.05) as pool:
        await pool.run(jobs.nothing)
        timed = pool.options(timeout=0.3)
        job = timed.submit(jobs.loop_in_python, str(reached))
        waiting = timed.submit(jobs.nothing)
        await reached.reached()
        error = await failure(job)
        assert error.where.endswith(" in loop_in_python")
        other = await failure(waiting)
        assert (other.where, other.worker, other.pid) == ("", None, None)
        assert not hasattr(other, "__notes__")


async def test_a_stopped_process_cannot_say_where_and_keeps_nobody(gate):
    reached = gate()
    async with Pool(1, grace=0.05) as pool:
        await pool.run(jobs.nothing)
        job = pool.options(run_timeout=0.3).submit(jobs.loop_in_python, str(reached))
        os.kill(await reached.reached(), signal.SIGSTOP)
        error = await failure(job)
        assert isinstance(error, JobTimeout)
        assert error.where == ""
        assert "did not say where it was: somebody has stopped it" in error.__notes__[0]


async def test_closing_waits_for_nobody_to_say_where(gate, monkeypatch):
    monkeypatch.setattr(late, "PATIENCE", 60)
    reached = gate()
    async with Pool(1, grace=0.01) as pool:
        await pool.run(jobs.nothing)
        job = pool.options(run_timeout=0.1).submit(jobs.loop_in_python, str(reached))
        os.kill(await reached.reached(), signal.SIGSTOP)
        while not pool._engine._late.busy:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        drained = asyncio.ensure_future(pool.drain())
        await asyncio.sleep(0)
        assert not drained.done(), "the caller was not told yet"
        await pool.close()
        await drained
        assert (await failure(job)).where == ""


@pytest.mark.slow
async def test_a_process_that_dies_leaves_what_it_has_printed():
    async with Pool(1) as pool:
        printed = pool.submit(jobs.print_then, "last", jobs.die_by, signal.SIGKILL)
        error = await failure(printed)
        assert isinstance(error, WorkerLost)
        said = "last to stdout\nlast to stderr\nlast by logging\n"
        assert error.output == said
        assert said.rstrip() in str(error)
        assert error.where == "", "nobody had the time to ask"
        assert f"job {printed.id} is FAILED" in error.story
        crashed = pool.submit(jobs.print_then, "last", jobs.segfault)
        error = await failure(crashed)
        assert error.output.startswith(said + "Fatal Python error: Segmentation fault")
        assert error.where.startswith("Fatal Python error: Segmentation fault")
        assert "in segfault" in error.where
        poison = pool.options(retries=9).submit(
            jobs.print_then, "last", jobs.die_by, signal.SIGKILL
        )
        error = await failure(poison)
        assert isinstance(error, PoisonJob)
        assert error.__cause__.output == said


async def test_what_was_printed_goes_where_it_always_went(capfd, caplog):
    async with Pool(1) as pool:
        await pool.run(jobs.print_then, "seen", jobs.nothing)
        out, err = capfd.readouterr()
    assert out == "seen to stdout\n"
    assert err == "seen to stderr\n"
    assert caplog.messages == ["seen by logging"], "what was logged is this program's"
