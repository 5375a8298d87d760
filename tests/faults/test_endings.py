"""Every ending of a job: each row of docs/endings.md is a test of that name.

Those of its first table are here, and in each the pool works on afterwards; the others
are in the files that the page names.
"""

from __future__ import annotations

import asyncio
import pickle
import re
import signal
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

import jobs
import jobs_odd
from offloop import Pool
from offloop.core import ledger
from offloop.errors import (
    ControlFlowError,
    JobTimeout,
    MemoryLimitExceeded,
    NotOffloadable,
    PoisonJob,
    PoolFull,
    Quarantined,
    RemoteError,
    ResultNotEncodable,
    WorkerLost,
)

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "endings.md"
HERE = "tests/faults/test_endings.py"


async def ending(function, *args, same_worker=True, **options):
    """Run one job in a pool of one worker; returns its result or its error."""
    async with Pool(1, grace=0.1, env={"MARK": "here"}) as pool:
        before = await pool.run(jobs.pid)
        (outcome,) = await asyncio.gather(
            pool.options(**options).run(function, *args), return_exceptions=True
        )
        assert await pool.run(jobs.add, 1, 2) == 3
        assert (await pool.run(jobs.pid) == before) is same_worker
        return outcome


async def test_returns():
    assert await ending(jobs.add, 1, 2) == 3


async def test_raises():
    error = await ending(jobs.raise_value_error, "bad")
    assert type(error) is ValueError
    assert "raise_value_error" in str(error.__cause__)


async def test_raises_what_cannot_be_pickled():
    error = await ending(jobs_odd.raise_error_that_cannot_be_pickled)
    assert "not portable" in str(error)


async def test_raises_with_an_odd_constructor():
    error = await ending(jobs_odd.raise_odd_error)
    assert type(error) is jobs_odd.ErrorWithOddConstructor
    assert error.code == 7
    error = await ending(jobs_odd.raise_frozen_error)
    assert error == jobs_odd.FrozenError(7)


async def test_raises_what_cannot_be_rebuilt():
    error = await ending(jobs_odd.raise_error_of_the_worker_alone)
    assert type(error) is RemoteError
    assert "OnlyThere: where am I" in str(error)
    assert "raise_error_of_the_worker_alone" in error.remote_traceback


STEERING = [
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError(),
    StopIteration(5),
]


@pytest.mark.parametrize("engine", ["local", "inline"])
@pytest.mark.parametrize("function", [jobs.raise_this, jobs_odd.raise_this_async])
async def test_raises_what_steers_a_program(engine, function):
    async with Pool(1, engine=engine) as pool:
        for original in STEERING:
            if function is not jobs.raise_this and isinstance(original, StopIteration):
                continue  # Python itself makes a RuntimeError of it in a coroutine
            with pytest.raises(ControlFlowError) as caught:
                await pool.run(function, original)
            cause = caught.value.__cause__
            assert type(cause) is type(original)
            assert cause.args == original.args
        assert await pool.run(jobs.add, 1, 2) == 3


async def test_raises_what_it_may_be_tried_again_for():
    again = {"retries": 1, "retry_on": ConnectionError}
    assert await ending(jobs_odd.fail_before_attempt, 2, **again) == 2
    error = await ending(jobs_odd.fail_before_attempt, 3, **again)
    assert (type(error), str(error)) == (ConnectionError, "attempt 2")


async def test_raises_what_it_may_be_tried_again_for_too_late(monkeypatch):
    monkeypatch.setattr(ledger, "retry_delay", lambda attempts, u: 60.0)
    again = {"retries": 9, "retry_on": ConnectionError, "timeout": 50}
    error = await ending(jobs_odd.fail_before_attempt, 2, **again)
    assert (type(error), str(error)) == (ConnectionError, "attempt 1")


async def test_recurses_without_end():
    assert type(await ending(jobs_odd.recurse)) is RecursionError


async def test_returns_what_cannot_be_pickled():
    error = await ending(jobs.unpicklable_result)
    assert type(error) is ResultNotEncodable


async def test_returns_what_cannot_be_unpickled():
    for cls in (jobs_odd.ErrorAtUnpickle, jobs_odd.ExitAtUnpickle):
        error = await ending(jobs_odd.make, cls)
        assert type(error) is RemoteError


async def test_takes_what_cannot_be_pickled():
    error = await ending(id, jobs_odd.ErrorAtPickle())
    assert isinstance(error, NotOffloadable)


async def test_takes_what_cannot_be_unpickled():
    error = await ending(id, jobs_odd.ErrorAtUnpickle())
    assert type(error) is pickle.UnpicklingError


async def test_crashes():
    error = await ending(jobs.segfault, same_worker=False)
    assert (type(error), error.signal) == (WorkerLost, "SIGSEGV")


async def test_exits_at_once():
    error = await ending(jobs.die_with_code, 7, same_worker=False)
    assert (type(error), error.exitcode) == (WorkerLost, 7)


async def test_is_killed():
    error = await ending(jobs.die_by, signal.SIGKILL, same_worker=False)
    assert (type(error), error.signal) == (WorkerLost, "SIGKILL")


async def test_is_killed_again_and_again():
    error = await ending(jobs.die_by, signal.SIGKILL, same_worker=False, retries=9)
    assert type(error) is PoisonJob
    assert isinstance(error.__cause__, WorkerLost)


async def test_is_killed_and_may_be_tried_again():
    die_twice = ending(jobs_odd.die_before_attempt, 3, same_worker=False, retries=2)
    assert await die_twice == 3


async def test_waits_behind_one_that_is_killed(gate, tmp_path):
    reached, until, log = gate(), gate(), tmp_path / "log"
    async with Pool(1) as pool:
        fatal = pool.submit(jobs_odd.die_after, str(reached), str(until))
        await reached.reached()
        behind = [pool.submit(jobs.note_and_add, str(log), n, 0) for n in range(3)]
        until.open()
        with pytest.raises(WorkerLost):
            await fatal
        assert await asyncio.gather(*behind) == [0, 1, 2]
        assert [job.attempts for job in behind] == [1, 1, 1]
    assert log.read_text().split() == ["0", "1", "2"]


async def test_is_of_a_function_that_keeps_killing():
    why = r"killed 5 workers in a row.* in \d\.\d s or later will be tried again"
    async with Pool(1) as pool:
        for _ in range(5):
            with pytest.raises(WorkerLost):
                await pool.run(jobs.die_by, signal.SIGKILL)
        before = await pool.run(jobs.pid)
        with pytest.raises(Quarantined, match=why) as caught:
            await pool.run(jobs.die_by, signal.SIGKILL)
        assert 0 < caught.value.retry_after <= 5
        assert caught.value.__cause__.signal == "SIGKILL"
        assert await pool.run(jobs.pid) == before


@asynccontextmanager
async def busy_pool(gate):
    """A pool of one worker that runs a job until the block ends; gives its worker."""
    reached, until = gate(), gate()
    async with Pool(1, grace=10) as pool:
        running = pool.submit(jobs.meet, str(reached), str(until))
        worker = await reached.reached()
        yield pool
        until.open()
        assert await running == "met"
        assert await pool.run(jobs.pid) == worker


async def test_waits_longer_than_it_may(gate, tmp_path):
    log = tmp_path / "log"
    async with busy_pool(gate) as pool:
        late = pool.options(timeout=0.001).submit(jobs.note_and_add, str(log), 1, 1)
        with pytest.raises(JobTimeout, match="was not run"):
            await late
    assert not log.exists()


async def test_finds_the_pool_full(gate):
    reached, until = gate(), gate()
    async with Pool(1, max_pending=1) as pool:
        worker = await pool.run(jobs.pid)
        running = pool.submit(jobs.meet, str(reached), str(until))
        with pytest.raises(PoolFull, match=r"Try again in about .* s, when") as caught:
            pool.submit(jobs.nothing)
        assert (caught.value.pending, caught.value.limit) == (1, 1)
        assert caught.value.retry_after > 0
        waiting = asyncio.create_task(pool.run(jobs.pid))
        mapped = pool.map(jobs.add, [1, 2])
        first = asyncio.ensure_future(anext(mapped))
        await asyncio.sleep(0)
        until.open()
        assert await asyncio.gather(running, waiting, first) == ["met", worker, 1]
        assert [rest async for rest in mapped] == [2]


async def test_is_cancelled_while_it_waits(gate, tmp_path):
    log = tmp_path / "log"
    async with busy_pool(gate) as pool:
        job = pool.submit(jobs.note_and_add, str(log), 1, 1)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
    assert not log.exists()


async def test_is_cancelled_while_it_runs(gate, tmp_path):
    reached, cleaned = gate(), tmp_path / "cleaned"
    async with Pool(1, grace=10) as pool:
        job = pool.submit(jobs.clean_up_when_stopped, str(reached), str(cleaned))
        worker = await reached.reached()
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert await pool.run(jobs.pid) != worker
        assert cleaned.exists()


async def test_is_cancelled_and_may_finish(gate):
    reached, until = gate(), gate()
    async with Pool(1) as pool:
        view = pool.options(on_cancel="finish")
        job = view.submit(jobs.meet, str(reached), str(until))
        worker = await reached.reached()
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        until.open()
        assert await pool.run(jobs.pid) == worker


async def test_is_cancelled_and_is_to_be_killed(gate, tmp_path):
    reached, cleaned = gate(), tmp_path / "cleaned"
    async with Pool(1, grace=600) as pool:
        view = pool.options(on_cancel="kill")
        job = view.submit(jobs.clean_up_when_stopped, str(reached), str(cleaned))
        worker = await reached.reached()
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert await pool.run(jobs.pid) != worker
        assert not cleaned.exists()


async def test_takes_more_memory_than_it_may():
    async with Pool(1, memory_limit="500MB") as pool:
        worker = await pool.run(jobs.pid)
        with pytest.raises(MemoryLimitExceeded):
            await pool.run(jobs.take, 1 << 30)
        assert await pool.run(jobs.pid) != worker


async def test_loops_in_python(gate):
    error = await ending(
        jobs.loop_in_python, str(gate()), same_worker=False, run_timeout=0.05
    )
    assert type(error) is JobTimeout


async def test_loops_in_c(gate):
    error = await ending(
        jobs.loop_in_c, str(gate()), same_worker=False, run_timeout=0.05
    )
    assert type(error) is JobTimeout


async def test_ignores_signals(gate):
    error = await ending(
        jobs_odd.ignore_signals, str(gate()), same_worker=False, run_timeout=0.05
    )
    assert type(error) is JobTimeout


async def test_stops_itself():
    error = await ending(jobs_odd.stop_oneself, same_worker=False, run_timeout=0.05)
    assert type(error) is JobTimeout


async def test_changes_directory(tmp_path):
    assert await ending(jobs_odd.change_directory, str(tmp_path)) == "changed"


async def test_clears_the_environment():
    assert await ending(jobs_odd.clear_environment) == "cleared"


@pytest.mark.slow
async def test_prints_100_megabytes(capfd):
    assert await ending(jobs_odd.print_much) == "printed"
    capfd.readouterr()


async def test_leaves_threads():
    assert await ending(jobs_odd.leave_threads) == 4


async def test_leaves_a_process():
    child = await ending(jobs_odd.leave_process)
    assert not psutil.pid_exists(child)  # killed and reaped before the pool has closed


async def test_forks():
    assert await ending(jobs_odd.fork) == 3


async def test_closes_every_file():
    outcome = await ending(jobs_odd.close_every_file, same_worker=False)
    assert outcome == "closed" or type(outcome) is WorkerLost


def test_every_row_of_the_page_is_a_test():
    sections = PAGE.read_text().split("\n## ")[1:]
    assert len(sections) == 6
    for section in sections:
        title, _, text = section.partition("\n")
        files = re.findall(r"\]\(\.\./(tests/[\w/]+\.py)\)", text)
        heads, *rows = re.findall(r"^\| ([^|]*?) +\| ", text, re.MULTILINE)
        assert heads in ("The job", "What happens"), title
        names = {"test_" + re.sub(r"\W+", "_", row.lower()) for row in rows[1:]}
        tests = {test for file in files for test in names_of_tests(ROOT / file)}
        assert names <= tests, title
        if HERE in files:
            assert names == tests - {"test_every_row_of_the_page_is_a_test"}


def names_of_tests(file):
    return re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)
