"""What goes wrong in an executor, on every side of it, and how it is told."""

from __future__ import annotations

import asyncio
import concurrent.futures
import pickle
import signal
import threading
import traceback
from concurrent.futures import (
    BrokenExecutor,
)
from concurrent.futures.process import BrokenProcessPool

import pytest

import jobs
import jobs_odd
from offloop import Executor
from offloop.errors import (
    NotOffloadable,
    RemoteError,
    ResultNotEncodable,
    StartError,
    WorkerLost,
)


@pytest.fixture
def executor():
    with Executor(2) as executor:
        yield executor


def test_an_exception_arrives_as_itself_with_the_workers_traceback(executor):
    with pytest.raises(ValueError, match="bad") as caught:
        executor.submit(jobs.raise_value_error).result()
    shown = "".join(traceback.format_exception(caught.value))
    assert "raise ValueError(text)" in shown


def test_an_exception_with_an_odd_constructor(executor):
    with pytest.raises(jobs_odd.ErrorWithOddConstructor, match="7: tired") as caught:
        executor.submit(jobs_odd.raise_odd_error).result()
    assert caught.value.code == 7


def test_an_exception_that_refuses_attributes(executor):
    error = executor.submit(jobs_odd.raise_frozen_error).exception(60)
    assert error == jobs_odd.FrozenError(7)
    assert "raise_frozen_error" in str(error.__cause__)
    with pytest.raises(jobs_odd.FrozenError):
        list(executor.map(jobs_odd.raise_frozen_error, [8]))


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(5),
        asyncio.CancelledError("stop"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_no_ordinary_exception_arrives_as_in_the_standard_library(
    executor, error
):
    future = executor.submit(jobs.raise_this, error)
    arrived = future.exception(60)
    assert type(arrived) is type(error)
    assert arrived.args == error.args
    assert not future.cancelled()


@pytest.mark.parametrize(
    ("error", "function", "argument"),
    [
        (pickle.PicklingError, id, jobs_odd.ErrorAtPickle),
        (SystemExit, id, jobs_odd.ExitAtPickle),
        (pickle.UnpicklingError, id, jobs_odd.ErrorAtUnpickle),
        (SystemExit, id, jobs_odd.ExitAtUnpickle),
        (BrokenProcessPool, id, jobs_odd.CrashAtUnpickle),
        (BrokenProcessPool, jobs_odd.crash, None),
        (SystemExit, jobs_odd.leave, None),
        (pickle.PicklingError, jobs_odd.make, jobs_odd.ErrorAtPickle),
        (SystemExit, jobs_odd.make, jobs_odd.ExitAtPickle),
        (BrokenProcessPool, jobs_odd.make, jobs_odd.CrashAtPickle),
        (RemoteError, jobs_odd.make, jobs_odd.ErrorAtUnpickle),
        (RemoteError, jobs_odd.make, jobs_odd.ExitAtUnpickle),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_trouble_on_every_side_is_an_error_and_no_deadlock(
    executor, error, function, argument
):
    if argument is None:
        future = executor.submit(function)
    else:
        future = executor.submit(function, argument() if function is id else argument)
    with pytest.raises(error):
        future.result(60)
    assert executor.submit(pow, 2, 3).result() == 8


def test_what_cannot_be_pickled_is_known_by_both_names(executor):
    with pytest.raises(NotOffloadable, match="argument 1"):
        executor.submit(id, threading.Lock()).result()
    error = executor.submit(jobs.unpicklable_result).exception()
    assert isinstance(error, ResultNotEncodable)
    assert isinstance(error, pickle.PicklingError)
    assert error.function == "unpicklable_result"


def test_a_lost_worker_costs_one_job_and_breaks_nothing():
    with Executor(1) as executor:
        before = executor.submit(jobs.pid).result()
        fatal = executor.submit(jobs.die_by, signal.SIGKILL)
        others = [executor.submit(jobs.add, n) for n in range(20)]
        error = fatal.exception()
        assert isinstance(error, WorkerLost)
        assert isinstance(error, BrokenExecutor)
        assert (error.signal, error.pid) == ("SIGKILL", before)
        assert [future.result() for future in others] == list(range(20))
        assert type(pickle.loads(pickle.dumps(error))) is type(error)


def test_a_failing_initializer_breaks_the_executor():
    executor = Executor(1, initializer=jobs.fail_to_initialize)
    futures = [executor.submit(jobs.nothing) for _ in range(3)]
    errors = [future.exception() for future in futures]
    for error in errors:
        assert isinstance(error, BrokenExecutor)
        assert isinstance(error, StartError)
        assert "no database today" in str(error)
        assert "no database today" in error.output
    assert len({id(error) for error in errors}) == 3
    executor._bridge.join()  # broken, it does not wait for its end
    with pytest.raises(BrokenProcessPool, match="no database today"):
        executor.submit(jobs.nothing)
    executor.shutdown()


def test_the_initializer_runs_in_every_worker():
    with Executor(2, initializer=jobs.initialize, initargs=("here",)) as executor:
        assert executor.submit(jobs.initialized).result() == "here"


def test_an_engine_that_cannot_begin_breaks_the_executor(monkeypatch):
    executor = Executor(1)

    def fail():
        raise OSError("no more processes")

    monkeypatch.setattr(executor._bridge._pool, "_begin", fail)
    with pytest.raises(BrokenProcessPool, match="no more processes"):
        executor.submit(jobs.nothing).result()
    executor.shutdown()


def test_a_thread_that_ends_by_a_bug_leaves_no_future_behind(monkeypatch):
    executor = Executor(1, engine="inline")

    async def fail():
        raise SystemError("a bug")

    monkeypatch.setattr(executor._bridge, "_serve", fail)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    future = executor.submit(jobs.nothing)
    with pytest.raises(Exception, match="thread of executor"):
        future.result(60)
    executor.shutdown()


def test_the_cause_of_an_exception_is_the_standard_librarys(executor):
    cause = executor.submit(jobs.raise_value_error).exception().__cause__
    assert type(cause) is concurrent.futures.process._RemoteTraceback
    assert "raise ValueError(text)" in cause.tb
