"""What is special about threads: nothing is copied, and nothing can be killed."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading

import pytest

import jobs
import jobs_streams
import waiting
from offloop import Executor, Pool, Recycle, current_job, default_pools, offload
from offloop.engines import thread_runner
from offloop.errors import (
    JobInterrupted,
    JobTimeout,
    NotOffloadable,
    PoolClosed,
    StartError,
    UsageError,
)


@pytest.mark.loops
async def test_jobs_run_in_threads_of_this_process_and_nothing_is_copied():
    async with Pool(2, engine="thread") as pool:
        lock = threading.Lock()
        (got,), words = await pool.run(jobs.echo, lock, word=[lock])
        assert got is lock
        assert words["word"][0] is lock
        assert await pool.run(jobs.pid) == os.getpid()
        assert await pool.run(threading.get_ident) != threading.get_ident()
        made = await pool.run(jobs.unpicklable_result)  # it need not travel
        assert list(made) == []
        parts = [part async for part in pool.stream(give_locks, lock)]
        assert parts == [lock] * 3


def give_locks(lock):
    for _ in range(3):
        yield lock


async def test_an_error_is_the_very_exception_without_frames_of_ours():
    error = KeyError("mine")
    async with Pool(1, engine="thread") as pool:
        with pytest.raises(KeyError) as caught:
            await pool.run(jobs.raise_this, error)
        assert caught.value is error
        deepest = caught.tb
        names = []
        while deepest is not None:
            names.append(deepest.tb_frame.f_code.co_name)
            deepest = deepest.tb_next
        assert names[-1] == "raise_this"
        assert names[-2] == "run"  # of the pool: where it was awaited
        tried = pool.map(jobs.raise_this, [error, error], return_exceptions=True)
        assert all(one is error for one in await tried)


async def test_a_job_sees_all_of_its_callers_context_and_keeps_its_own():
    hidden = contextvars.ContextVar("hidden", default=0)  # no global of any module

    def read_and_set():
        before = hidden.get()
        hidden.set(9)
        return before

    async with Pool(1, engine="thread") as pool:
        hidden.set(1)
        assert await pool.run(read_and_set) == 1
        assert hidden.get() == 1
        assert await pool.map(lambda _: read_and_set(), [1]) == [1]
        retried = pool.options(retries=1, retry_on=ValueError).submit(fail_once, hidden)
        assert await retried == (1, 2)


def fail_once(variable):
    before = variable.get()
    variable.set(5)
    if current_job().attempt == 1:
        raise ValueError("once")
    return before, current_job().attempt


@pytest.mark.parametrize(
    "option",
    [
        {"memory_limit": "1GiB"},
        {"recycle": Recycle(max_jobs=3)},
        {"isolation": "process"},
        {"env": {"A": "b"}},
    ],
)
def test_what_only_processes_have_is_refused_at_the_call(option, monkeypatch):
    monkeypatch.delenv("OFFLOOP_ENGINE", raising=False)
    with pytest.raises(UsageError, match=f"{next(iter(option))} needs processes"):
        Pool(engine="thread", **option)


def test_a_sandbox_is_refused_too():
    with pytest.raises(ValueError, match="sandbox=True cannot hold"):
        Pool(engine="thread", isolation="process", sandbox=True)


async def test_a_program_that_was_sent_to_threads_goes_without_limits(monkeypatch):
    monkeypatch.setenv("OFFLOOP_ENGINE", "thread")
    async with Pool(1, memory_limit="1GiB") as pool:
        assert await pool.run(jobs.pid) == os.getpid()
    with pytest.raises(UsageError, match="env needs"):
        Pool(env={"A": "b"})


async def test_a_kill_and_a_reload_are_refused():
    async with Pool(1, engine="thread") as pool:
        with pytest.raises(UsageError, match="cannot be killed"):
            pool.options(on_cancel="kill").submit(jobs.nothing)
        with pytest.raises(UsageError, match="nothing to reload"):
            await pool.reload()
        assert await pool.run(jobs.add, 1, 2) == 3


async def test_a_job_that_does_not_stop_keeps_its_thread_and_nobody_waits(gate):
    here, until = gate(), gate()
    async with Pool(1, engine="thread", grace=0.01) as pool:
        view = pool.options(run_timeout=0.05)
        with pytest.raises(JobTimeout, match="run_timeout") as caught:
            await view.run(jobs.meet, str(here), str(until))
        assert "in wait_for" in caught.value.where
        assert caught.value.pid == os.getpid()
        behind = pool.submit(jobs.add, 1, 2)
        await asyncio.sleep(0)
        (worker,) = pool.workers()
        assert (worker.state, worker.function) == ("busy", "jobs.meet")
        assert "in wait_for" in (await pool.dump())[0].traceback
        assert not behind.done()
        until.open()
        assert await behind == 3
        assert pool.stats().workers_started == 1


async def test_a_job_is_never_interrupted_inside_of_a_library(gate):
    """An interrupt waits until the job's own code goes on: see `thread_runner`."""
    reached = gate()
    async with Pool(1, engine="thread", grace=60.0) as pool:
        box = []
        lock = threading.Lock()
        lock.acquire()
        job = pool.submit(wait_in_library, str(reached), lock, box)
        await reached.reached()
        job.cancel()
        await asyncio.sleep(0.02)
        assert box == []
        lock.release()
        assert await pool.run(jobs.add, 1, 2) == 3
        assert box == ["library done", "stopped"]


def wait_in_library(reached, lock, box):
    import concurrent.futures

    def notice(_):
        lock.acquire()  # a callback that the library calls
        box.append("library done")

    future = concurrent.futures.Future()
    future.add_done_callback(of_a_library(notice))
    jobs.reach(reached)
    try:
        future.set_result(None)
        while True:
            pass
    except JobInterrupted:
        box.append("stopped")
        raise


def of_a_library(function):
    """Return what does the same in a module that is not the job's."""
    namespace = {**function.__globals__, "__name__": "library"}
    closure = function.__closure__
    return type(function)(function.__code__, namespace, closure=closure)


async def test_an_interrupt_that_is_swallowed_comes_again_after_the_grace(gate):
    reached = gate()
    box = []
    async with Pool(1, engine="thread", grace=0.05) as pool:
        job = pool.submit(swallow_once, str(reached), box)
        await reached.reached()
        job.cancel()
        assert await pool.run(jobs.add, 1, 2) == 3
        assert box == ["swallowed", "stopped"]


def swallow_once(reached, box):
    jobs.reach(reached)
    for what in ("swallowed", "stopped"):
        try:
            while True:
                pass
        except JobInterrupted:
            box.append(what)
    raise JobInterrupted


async def test_a_report_is_a_place_to_stop_at(gate, monkeypatch):
    monkeypatch.setattr(thread_runner, "_HAS_GIL", False)
    reached = gate()
    async with Pool(1, engine="thread", grace=60.0) as pool:
        job = pool.submit(report_for_ever, str(reached))
        await reached.reached()
        job.cancel()
        assert await pool.run(jobs.add, 1, 2) == 3


def report_for_ever(reached):
    jobs.reach(reached)
    while True:
        current_job().report(1)


async def test_a_job_that_interrupts_itself_is_cancelled():
    async with Pool(1, engine="thread") as pool:
        job = pool.submit(jobs.raise_this, JobInterrupted())
        with pytest.raises(asyncio.CancelledError):
            await job
        assert await pool.run(jobs.add, 1, 2) == 3


async def test_interrupts_at_any_moment_hit_their_own_job_only():
    """Jobs end while they are being interrupted, again and again."""
    async with Pool(2, engine="thread", grace=60.0) as pool:
        results = []
        for number in range(150):
            short = pool.submit(count_to, 200 * (number % 30))
            await asyncio.sleep(0)
            short.cancel()
            results.append(pool.submit(jobs.add, number))
        assert await asyncio.gather(*results) == list(range(150))


def count_to(number):
    for _ in range(number):
        pass


async def test_a_chunk_of_coroutines_is_stopped_as_a_whole(gate):
    reached = gate()
    async with Pool(1, engine="thread", grace=60.0) as pool:
        results = pool.map(wait_at, [str(reached)] * 3, chunksize=3)
        reading = asyncio.ensure_future(anext(results))
        await reached.reached()
        reading.cancel()
        assert await pool.run(jobs.add, 1, 2) == 3
        assert not reached.was_reached()


async def wait_at(reached):
    jobs.reach(reached)
    await asyncio.Event().wait()


async def test_a_stream_can_be_left_while_its_generator_waits_for_anything(gate):
    closed = gate()
    async with Pool(1, engine="thread", grace=60.0) as pool:
        stream = pool.stream(yield_then_wait, str(closed))
        assert await anext(aiter(stream)) == 1
        await stream.aclose()
        await closed.reached()
        two = pool.options(buffersize=1).stream(jobs_streams.count_async, 5)
        assert [part async for part in two] == [0, 1, 2, 3, 4]


async def yield_then_wait(closed):
    try:
        yield 1
        await asyncio.Event().wait()
    finally:
        jobs.reach(closed)


async def test_an_object_that_was_put_is_itself():
    async with Pool(1, engine="thread") as pool, Pool(1, engine="thread") as other:
        thing = threading.Lock()
        ref = await pool.put(thing)
        assert await pool.run(jobs.echo, ref, a={"b": (ref,)}) == (
            (thing,),
            {"a": {"b": (thing,)}},
        )
        with pytest.raises(NotOffloadable, match="whose put"):
            other.submit(jobs.echo, ref)


async def test_bytes_of_pending_jobs_are_counted(gate):
    here, until = gate(), gate()
    async with Pool(1, engine="thread", max_pending_bytes=1000) as pool:
        held = pool.submit(jobs.meet, str(here), str(until))
        await here.reached()
        sent = pool.submit(len, bytes(2000))
        assert pool.stats().pending_bytes >= 2000
        waits = asyncio.ensure_future(pool.run(len, b"abc"))
        until.open()
        assert (await held, await sent, await waits) == ("met", 2000, 3)


async def test_resizing_adds_threads_and_lets_them_go():
    async with Pool(1, engine="thread") as pool:
        await pool.resize(3)
        assert pool.stats().workers == 3
        await pool.resize(1)
        await waiting.until(lambda: pool.stats().workers == 1)
        assert await pool.run(jobs.add, 1, 2) == 3
        assert [worker.state for worker in pool.workers()] == ["idle"]


async def test_what_cannot_be_set_up_is_an_error_at_the_start():
    with pytest.raises(StartError, match="no database today"):
        await Pool(2, engine="thread", initializer=jobs.fail_to_initialize).start()
    with pytest.raises(StartError, match="no_such_module"):
        async with Pool(1, engine="thread", preload=["no_such_module"]):
            pass


async def test_closing_does_not_wait_for_what_cannot_be_stopped(gate, caplog):
    here, until = gate(), gate()
    pool = await Pool(2, engine="thread", grace=0.0).start()
    job = pool.submit(jobs.meet, str(here), str(until))
    await here.reached()
    await pool.kill()
    assert job.cancelled()
    assert "jobs.meet, does not stop, and cannot be killed" in caplog.text
    with pytest.raises(PoolClosed):
        await pool.run(jobs.nothing)
    until.open()


@pytest.mark.slow
def test_a_program_ends_though_a_job_does_not():
    code = (
        "import asyncio, time\n"
        "from offloop import Pool\n"
        "async def main():\n"
        "    pool = await Pool(1, engine='thread', grace=0).start()\n"
        "    job = pool.submit(time.sleep, 600)\n"
        "    await pool.kill()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=60, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


async def test_a_function_may_have_threads_whatever_the_others_have(monkeypatch):
    monkeypatch.setattr(default_pools, "_options", {"memory_limit": "1GiB"})
    monkeypatch.setenv("OFFLOOP_ENGINE", "shared")  # as in a server of `offloop serve`
    here = offload(engine="thread", timeout=60)(jobs.echo)
    lock = threading.Lock()
    assert await here(lock) == ((lock,), {})
    assert await here.options(priority=1).submit(lock) == ((lock,), {})
    assert [r async for r in here.map([lock])] == [((lock,), {})]
    counted = offload(engine="thread")(jobs_streams.count)
    assert [part async for part in counted(3)] == [0, 1, 2]
    pool = default_pools.default_pool("thread")
    assert pool.stats().completed == 4
    assert pool._options.name == "default-thread"
    await pool.close()
    monkeypatch.setenv("OFFLOOP_ENGINE", "inline")  # to debug it
    assert await offload(engine="thread")(threading.get_ident)() == (
        threading.get_ident()
    )
    monkeypatch.delenv("OFFLOOP_ENGINE")
    with pytest.raises(ValueError, match="engine is one of"):
        offload(engine="gevent")(jobs.echo)


def test_an_executor_may_have_threads():
    with Executor(2, engine="thread") as executor:
        lock = threading.Lock()
        assert executor.submit(jobs.echo, lock).result() == ((lock,), {})
        assert list(executor.map(jobs.add, range(3))) == [0, 1, 2]


async def test_an_offloaded_function_inside_of_a_job_runs_right_there():
    async with Pool(1, engine="thread") as pool:
        assert await pool.run(jobs.doubled_of_doubled.local, 3) == 12
