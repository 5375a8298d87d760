"""The executor as users of `concurrent.futures` know one.

The behaviours are those that CPython's own tests of its process pool ask for, and those
in which this one is better on purpose.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
import weakref
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    as_completed,
    wait,
)
from concurrent.futures.process import BrokenProcessPool

import pytest

import jobs
import jobs_odd
from offloop import Executor
from offloop.errors import (
    JobTimeout,
    NotOffloadable,
    PoolClosed,
    PoolFull,
    RemoteError,
    ResultNotEncodable,
    StartError,
    WorkerLost,
    WrongLoop,
)


@pytest.fixture
def executor():
    with Executor(2) as executor:
        yield executor


class Pipe:
    """A gate for tests without a loop."""

    def __init__(self, path):
        os.mkfifo(path)
        self.path = str(path)
        self._fd = os.open(path, os.O_RDWR)

    def reached(self):
        return int(os.read(self._fd, 4096).split()[0])

    def open(self):
        os.write(self._fd, b"." * 1000)

    def close(self):
        os.close(self._fd)


@pytest.fixture
def pipe(tmp_path):
    pipes = []

    def make():
        pipes.append(Pipe(tmp_path / f"pipe{len(pipes)}"))
        return pipes[-1]

    yield make
    for one in pipes:
        one.close()


def settle(*futures):
    wait(futures, timeout=60)
    return futures


# Calls


def test_it_is_an_executor(executor):
    assert isinstance(executor, concurrent.futures.Executor)
    assert executor.submit(pow, 2, 8).result() == 256
    assert "max_workers=2" in repr(executor)


def test_every_keyword_belongs_to_the_function(executor):
    assert executor.submit(jobs.add, 2, b=8).result() == 10
    args, kwargs = executor.submit(jobs.echo, 1, self=2, fn=3, timeout=4).result()
    assert (args, kwargs) == ((1,), {"self": 2, "fn": 3, "timeout": 4})
    with pytest.raises(TypeError):
        executor.submit(fn=jobs.echo)
    with pytest.raises(TypeError):
        executor.submit()


def test_every_kind_of_callable(executor):
    offset = 3
    assert executor.submit(lambda value: value + offset, 4).result() == 7
    assert executor.submit(jobs.add_async, 1, 2).result() == 3
    assert executor.submit(jobs_odd.Plain().method).result() == "called"


def test_futures_are_done_in_any_order(executor, pipe):
    reached, until = pipe(), pipe()
    slow = executor.submit(jobs.meet, reached.path, until.path)
    reached.reached()
    quick = executor.submit(pow, 2, 3)
    done, pending = wait([slow, quick], return_when=FIRST_COMPLETED)
    assert (done, pending) == ({quick}, {slow})
    assert slow.running()
    assert not slow.done()
    until.open()
    assert list(as_completed([slow])) == [slow]
    assert not slow.running()
    assert slow.result() == "met"


def test_callbacks_run_in_the_executors_process_also_when_they_submit(executor):
    seen, second = [], []
    done = threading.Event()

    def submit_again(future):
        seen.append((future.result(), os.getpid()))
        second.append(executor.submit(pow, 2, 3))
        second[0].add_done_callback(lambda _: done.set())

    executor.submit(pow, 2, 2).add_done_callback(submit_again)
    assert done.wait(60)
    assert seen == [(4, os.getpid())]
    assert second[0].result() == 8


def test_many_threads_may_submit_at_once(executor):
    results = {}

    def use(number):
        futures = [executor.submit(jobs.add, number, each) for each in range(300)]
        results[number] = [future.result() for future in futures]

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [n + each for each in range(300)] for n in range(8)}


def test_a_burst_wakes_the_loop_once():
    executor = Executor(1, engine="inline")
    executor.submit(jobs.nothing).result()
    loop = executor._bridge._loop
    wakes = []
    wake = loop.call_soon_threadsafe
    loop.call_soon_threadsafe = lambda *args: wakes.append(args) or wake(*args)
    with executor._bridge._lock:  # the loop cannot look meanwhile
        futures = [executor.submit(jobs.add, 1) for _ in range(100)]
    assert [future.result() for future in futures] == [1] * 100
    assert len(wakes) == 1
    executor.shutdown()


async def test_run_in_executor_and_asyncio_cancellation(executor, gate):
    loop = asyncio.get_running_loop()
    assert await loop.run_in_executor(executor, jobs.add, 1, 2) == 3
    reached = gate()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await loop.run_in_executor(executor, jobs.loop_in_python, str(reached))
    assert await loop.run_in_executor(executor, jobs.add, 1, 2) == 3


def test_nothing_is_kept_of_a_call_and_its_result(executor):
    gone = threading.Event()
    plain = jobs_odd.Plain()
    watch = weakref.ref(plain, lambda _: gone.set())
    executor.submit(plain.method)
    del plain
    assert gone.wait(60)
    assert watch() is None
    for result in executor.map(jobs_odd.make_plain, range(10)):
        watch = weakref.ref(result)
        del result
        gc.collect()
        assert watch() is None


# map


def test_map(executor):
    squares = list(executor.map(pow, range(10), [2] * 10))
    assert squares == [n**2 for n in range(10)]


def test_map_stops_at_the_error_of_an_item(executor):
    results = executor.map(divmod, [1, 1, 1, 1], [2, 3, 0, 5])
    assert next(results) == (0, 1)
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_map_gives_up_after_its_timeout(executor, pipe):
    reached = pipe()
    results = executor.map(jobs.loop_in_python, [reached.path], timeout=0.05)
    with pytest.raises(TimeoutError):
        next(results)
    assert executor.submit(pow, 2, 3).result() == 8


def test_map_reads_all_at_once_and_works_without_being_asked(executor):
    taken = []
    results = executor.map(jobs.add, (taken.append(n) or n for n in range(100)))
    assert taken == list(range(100))
    executor.shutdown()
    assert list(results) == taken


@pytest.mark.parametrize("count", [0, 2, 3, 50])
def test_map_with_a_buffer_reads_as_results_are_asked_for(executor, count):
    taken = []
    items = (taken.append(n) or n for n in range(count))
    results = executor.map(jobs.add, items, buffersize=3)
    for number, result in enumerate(results):
        assert result == number
        assert len(taken) <= number + 10
    assert taken == list(range(count))


def test_map_with_a_buffer_takes_endless_iterables(executor):
    results = executor.map(jobs.add, itertools.count(), itertools.count(), buffersize=9)
    assert list(itertools.islice(results, 200)) == list(range(0, 400, 2))
    results.close()


def test_map_refuses_to_read_on_after_shutdown(executor):
    results = executor.map(jobs.add, itertools.count(), buffersize=5)
    next(results)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        list(results)


@pytest.mark.parametrize("leave", ["close", "forget"])
def test_map_that_nobody_listens_to_is_stopped(executor, pipe, leave):
    reached = pipe()
    results = executor.map(jobs.loop_in_python, [reached.path] * 9)
    reached.reached()
    if leave == "close":
        results.close()
    del results
    assert executor.submit(pow, 2, 3).result() == 8
    executor.shutdown()


def test_map_is_cancelled_by_shutdown(pipe):
    reached, until = pipe(), pipe()
    executor = Executor(1, grace=0.05)
    results = executor.map(jobs.meet, [reached.path] * 9, [until.path] * 9)
    reached.reached()
    executor.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        list(results)


def test_map_with_items_that_exit_or_fail_when_pickled(executor):
    with pytest.raises(SystemExit):
        list(executor.map(id, [jobs_odd.ExitAtPickle()] * 2))
    with pytest.raises(pickle.PicklingError):
        list(executor.map(id, [jobs_odd.ErrorAtPickle()] * 2))
    assert list(executor.map(abs, [-1])) == [1]


def test_map_of_a_broken_executor():
    with Executor(1, initializer=jobs.fail_to_initialize) as executor:
        with pytest.raises(BrokenExecutor, match="no database today"):
            list(executor.map(abs, [1]))
        with pytest.raises(BrokenExecutor, match="no database today"):
            executor.map(abs, [1])


def test_map_refuses_nonsense(executor):
    with pytest.raises(ValueError, match="chunksize"):
        executor.map(abs, [1], chunksize=-1)
    with pytest.raises(ValueError, match="buffersize"):
        executor.map(abs, [1], buffersize=0)
    with pytest.raises(TypeError, match="int"):
        executor.map(abs, 3)


@pytest.mark.slow
def test_map_of_many_short_items_is_quick(executor):
    count = 200_000
    assert sum(executor.map(abs, range(count))) == count * (count - 1) // 2
    assert executor._bridge._pool.stats().submitted < 5000


# Errors


def test_an_exception_arrives_as_itself_with_the_workers_traceback(executor):
    with pytest.raises(ValueError, match="bad") as caught:
        executor.submit(jobs.raise_value_error).result()
    shown = "".join(traceback.format_exception(caught.value))
    assert "raise ValueError(text)" in shown


def test_an_exception_with_an_odd_constructor(executor):
    with pytest.raises(jobs_odd.ErrorWithOddConstructor, match="7: tired") as caught:
        executor.submit(jobs_odd.raise_odd_error).result()
    assert caught.value.code == 7


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


# Cancelling


def test_cancelling_a_queued_call(pipe, tmp_path):
    reached, until, log = pipe(), pipe(), tmp_path / "log"
    with Executor(1) as executor:
        running = executor.submit(jobs.meet, reached.path, until.path)
        queued = executor.submit(jobs.note_and_add, str(log), 1, 1)
        reached.reached()
        assert queued.cancel()
        assert queued.cancel()
        assert wait([queued]).done == {queued}
        with pytest.raises(CancelledError):
            queued.result()
        until.open()
        assert running.result() == "met"
    assert not log.exists()


def test_cancelling_stops_a_call_that_runs(pipe, tmp_path):
    reached, cleaned = pipe(), tmp_path / "cleaned"
    with Executor(1, grace=10) as executor:
        future = executor.submit(jobs.clean_up_when_stopped, reached.path, str(cleaned))
        reached.reached()
        assert future.running()
        assert future.cancel()
        assert not future.running()
        assert executor.submit(jobs.add, 1).result() == 1
    assert cleaned.exists()


def test_a_call_that_is_done_cannot_be_cancelled(executor):
    future = executor.submit(jobs.add, 1)
    assert future.result() == 1
    assert not future.cancel()
    assert not future.cancelled()


def test_a_call_cancelled_before_the_thread_has_seen_it(executor):
    with executor._bridge._lock:
        future = executor.submit(jobs.add, 1)
        assert future.cancel()
    assert wait([future]).done == {future}
    assert future.cancelled()


def test_time_limits_hold(pipe):
    with Executor(1, run_timeout=0.05, grace=0.05) as executor:
        future = executor.submit(jobs.loop_in_c, pipe().path)
        with pytest.raises(JobTimeout, match="run_timeout"):
            future.result()


def test_max_pending_refuses_in_the_callers_thread(pipe):
    reached, until = pipe(), pipe()
    with Executor(1, max_pending=2) as executor:
        first = executor.submit(jobs.meet, reached.path, until.path)
        second = executor.submit(jobs.add, 1)
        with pytest.raises(PoolFull, match="max_pending is 2") as caught:
            executor.submit(jobs.add, 2)
        assert (caught.value.pending, caught.value.limit) == (2, 2)
        until.open()
        assert (first.result(), second.result()) == ("met", 1)
        executor.submit(jobs.add, 3).result()


# Ends


def test_nothing_starts_before_the_first_call():
    before = threading.active_count()
    executor = Executor(1)
    assert threading.active_count() == before
    executor.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(jobs.nothing)


def test_shutdown_waits_for_what_was_submitted():
    executor = Executor(2)
    futures = [executor.submit(jobs.add, n) for n in range(50)]
    results = executor.map(abs, range(-5, 5))
    executor.shutdown()
    executor.shutdown()
    assert all(future.done() for future in futures)
    assert list(results) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    with pytest.raises(PoolClosed):
        executor.submit(jobs.nothing)
    with pytest.raises(RuntimeError):
        executor.map(abs, [1])


def test_shutdown_without_waiting_lets_the_work_end(pipe):
    reached, until = pipe(), pipe()
    executor = Executor(1)
    future = executor.submit(jobs.meet, reached.path, until.path)
    after = executor.submit(jobs.add, 1)
    executor.shutdown(wait=False)
    reached.reached()
    until.open()
    assert (future.result(), after.result()) == ("met", 1)
    executor.shutdown()


def test_shutdown_cancels_what_no_worker_has(pipe):
    reached, until = pipe(), pipe()
    executor = Executor(1)
    running = executor.submit(jobs.meet, reached.path, until.path)
    reached.reached()
    queued = [executor.submit(jobs.add, n) for n in range(100)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert wait(queued).not_done == set()
    assert all(future.cancelled() for future in queued)
    until.open()
    executor.shutdown()
    assert running.result() == "met"


def test_shutdown_after_a_crash_a_bad_pickle_or_a_cancellation():
    for spoil in (
        lambda executor: executor.submit(jobs_odd.crash),
        lambda executor: executor.submit(id, jobs_odd.ErrorAtPickle()),
        lambda executor: executor.submit(int).cancel(),
    ):
        with Executor(1) as executor:
            spoil(executor)
            executor.shutdown(wait=False)


def test_shutdown_from_a_callback_cannot_wait_and_does_not():
    executor = Executor(1)
    future = executor.submit(jobs.nothing)
    future.add_done_callback(lambda _: executor.shutdown())
    future.result()
    executor._bridge.join()


def test_an_executor_that_nobody_holds_ends_when_its_work_is_done(pipe):
    reached, until = pipe(), pipe()
    executor = Executor(1)
    bridge = executor._bridge
    future = executor.submit(jobs.meet, reached.path, until.path)
    reached.reached()
    del executor
    gc.collect()
    assert not future.done()
    until.open()
    bridge.join()
    assert future.result() == "met"


def test_a_forked_process_is_told_to_make_its_own(executor):
    code = os.fork()
    if not code:
        try:
            executor.submit(jobs.nothing)
        except WrongLoop:
            executor.shutdown(wait=False)  # has no effect on the parent's
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(code, 0)[1]) == 7
    assert executor.submit(jobs.add, 1).result() == 1


def test_wrong_words_are_refused():
    with pytest.raises(TypeError, match="use max_workers"):
        Executor(processes=3)
    with pytest.raises(TypeError, match="mp_context"):
        Executor(mp_context=None)
    with pytest.raises(ValueError, match="max_workers"):
        Executor(0)
    with pytest.raises(ValueError, match="max_pending"):
        Executor(max_pending=0)


def run(script):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize("end", ["", "executor.shutdown(wait=False)", "del executor"])
def test_at_the_end_of_the_program_pending_work_is_done(end):
    out, err = run(
        "from offloop import Executor\n"
        "executor = Executor(1)\n"
        "for n in range(3):\n"
        "    executor.submit(print, n, flush=True)\n"
        f"{end}\n"
    )
    assert (out, err) == (["0", "1", "2"], "")


def test_after_the_end_of_the_program_calls_are_refused():
    out, err = run(
        "import atexit\n"
        "from offloop import Executor\n"
        "used, fresh = Executor(1), Executor(1)\n"
        "used.submit(int).result()\n"
        "@atexit.register\n"
        "def late():\n"
        "    for executor in (used, fresh):\n"
        "        try:\n"
        "            executor.submit(int)\n"
        "        except RuntimeError as error:\n"
        "            print(type(error).__name__)\n"
    )
    assert (out, err) == (["PoolClosed", "PoolClosed"], "")


def test_ctrl_c_ends_the_program_and_its_workers():
    script = (
        "import signal, time\n"
        "from offloop import Executor\n"
        "executor = Executor(1)\n"
        "print(executor.submit(__import__('os').getpid).result(), flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        worker = int(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in err
    assert process.returncode == -signal.SIGINT
    assert not os.path.exists(f"/proc/{worker}")
