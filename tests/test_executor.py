"""The executor as users of `concurrent.futures` know one.

The behaviours are those that CPython's own tests of its process pool ask for, and those
in which this one is better on purpose.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import inspect
import itertools
import os
import pickle
import threading
import weakref
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    as_completed,
    wait,
)

import pytest

import jobs
import jobs_odd
from offloop import Executor, Pool
from offloop.errors import (
    JobTimeout,
    PoolFull,
)


@pytest.fixture
def executor():
    with Executor(2) as executor:
        yield executor


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
        assert caught.value.retry_after is None  # nothing had ended
        executor.submit(jobs.add, 3).result()
        again = [executor.submit(jobs.meet, reached.path, pipe().path) for _ in "ab"]
        with pytest.raises(PoolFull, match=r"Try again in about .* s, when") as caught:
            executor.submit(jobs.nothing)
        assert caught.value.retry_after > 0
        assert all(future.cancel() for future in again)


def test_it_has_the_options_of_a_pool():
    words, mine = (inspect.signature(cls).parameters for cls in (Pool, Executor))
    assert words.keys() - mine.keys() == {"max_pending_bytes", "pin_cpus"}
    with Executor(1, isolation="process", memory_limit="500MB") as executor:
        assert len({executor.submit(jobs.pid).result() for _ in range(2)}) == 2
        error = executor.submit(jobs.take, 1 << 30).exception()
        assert isinstance(error, MemoryError)
