"""The pool as its users see it: calls, options, beginning and end."""

from __future__ import annotations

import asyncio
import colorsys
import functools
import os
import signal
import sys
import threading
import types
from datetime import timedelta

import pytest

import jobs
import jobs_context as context
from offloop import Pool, PoolStats, Recycle
from offloop.errors import (
    JobTimeout,
    NotOffloadable,
    PoolClosed,
    RemoteTraceback,
    ResultNotEncodable,
    StartError,
    UsageError,
    WrongLoop,
)


@pytest.mark.loops
async def test_submit_gives_a_future_of_the_result():
    async with Pool(1) as pool:
        job = pool.submit(jobs.add, 1, b=2)
        assert isinstance(job, asyncio.Future)
        assert not job.done()
        assert await job == 3
        assert await job == 3
        assert job.state == "done"
        assert job.attempts == 1
        assert job.worker is not None
        assert job.function == "jobs.add"


@pytest.mark.loops
async def test_run_waits_for_the_result():
    async with Pool(2) as pool:
        assert await pool.run(jobs.add, 1, 2) == 3
        results = await asyncio.gather(*(pool.run(jobs.add, n, n) for n in range(300)))
        assert results == [2 * n for n in range(300)]


async def test_every_kind_of_callable(lend):
    offset = 7

    def local(value):
        return value + offset

    async with lend() as pool:
        point = jobs.Point(1, 2)
        assert await pool.run(lambda value: value + 1, 1) == 2
        assert await pool.run(local, 1) == 8
        assert await pool.run(functools.partial(jobs.add, 1), 2) == 3
        assert (await pool.run(point.shifted, 3)).x == 4
        assert await pool.run(point, 5) == 5
        assert await pool.run(len, "four") == 4
        assert (await pool.run(jobs.Point, 1, 2)).y == 2
        assert await pool.run(jobs.add_async, 1, 2) == 3
        assert await pool.run(jobs.doubled, 4) == 8


async def test_arguments_are_encoded_at_the_call(lend):
    async with lend() as pool:
        values = [1, 2]
        job = pool.submit(len, values)
        values.append(3)
        assert await job == 2


async def test_large_arguments_are_encoded_at_the_call(lend):
    async with lend() as pool:
        data = bytearray(100_000)
        job = pool.submit(bytes.count, b"x" * 100_000, b"x")
        other = pool.submit(sum, data)
        data[:] = b"\1" * len(data)
        assert await job == 100_000
        assert await other == 0


async def test_large_results_come_back(lend):
    async with lend() as pool:
        assert await pool.run(bytes, 1_000_000) == bytes(1_000_000)
        assert await pool.run(bytearray, 100_000) == bytearray(100_000)
        (text,), _ = await pool.run(jobs.echo, "ä" * 300_000)
        assert text == "ä" * 300_000


async def test_an_exception_keeps_its_type_and_shows_the_workers_traceback():
    async with Pool(1) as pool:
        with pytest.raises(ValueError, match="bad") as caught:
            await pool.run(jobs.raise_value_error)
        cause = caught.value.__cause__
        assert isinstance(cause, RemoteTraceback)
        assert "raise_value_error" in str(cause)
        with pytest.raises(ValueError, match="outer") as caught:
            await pool.run(jobs.raise_from_cause)
        assert isinstance(caught.value.__cause__, KeyError)


async def test_what_cannot_travel_is_an_error_at_the_call():
    async with Pool(1) as pool:
        with pytest.raises(NotOffloadable, match="argument 2"):
            pool.submit(jobs.add, 1, threading.Lock())
        with pytest.raises(NotOffloadable, match="b"):
            pool.submit(jobs.add, 1, b=threading.Lock())
        with pytest.raises(NotOffloadable):
            pool.submit(3)
        with pytest.raises(NotOffloadable, match="generator function"):
            pool.submit(jobs.generate)
        assert pool.stats().submitted == 0
        with pytest.raises(ResultNotEncodable):
            await pool.run(jobs.unpicklable_result)
        assert await pool.run(jobs.add, 1, 1) == 2


async def test_a_queued_job_that_is_cancelled_never_runs(tmp_path, gate):
    log, reached, until = tmp_path / "log", gate(), gate()
    async with Pool(1) as pool:
        running = pool.submit(jobs.meet, str(reached), str(until))
        queued = pool.submit(jobs.note_and_add, str(log), 1, 1)
        assert queued.cancel()
        assert not queued.cancel()
        assert queued.state == "cancelled"
        until.open()
        assert await running == "met"
        assert await pool.run(jobs.note_and_add, str(log), 2, 2) == 4
        assert log.read_text() == "2\n"
        assert pool.stats().cancelled == 1


@pytest.mark.parametrize("loop", [jobs.loop_in_c, jobs.swallow_exceptions])
async def test_cancelling_stops_what_does_not_listen(gate, loop):
    reached = gate()
    async with Pool(1, grace=0.05) as pool:
        job = pool.submit(loop, str(reached))
        stuck = await reached.reached()
        job.cancel()
        assert await pool.run(jobs.pid) != stuck


async def test_cancelling_the_await_cancels_the_job(gate):
    reached = gate()
    async with Pool(1, grace=0.05) as pool:
        task = asyncio.create_task(pool.run(jobs.loop_in_python, str(reached)))
        await reached.reached()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool.stats().cancelled == 1


async def test_timeouts_stop_the_work(gate):
    async with Pool(1, grace=0.05) as pool:
        slow = pool.options(run_timeout=0.05)
        with pytest.raises(JobTimeout, match=r"run_timeout=0\.05 s") as caught:
            await slow.run(jobs.loop_in_c, str(gate()))
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.kind == "run_timeout"
        with pytest.raises(JobTimeout, match=r"timeout=0\.05"):
            await pool.options(timeout=timedelta(milliseconds=50)).run(
                jobs.loop_in_python, str(gate())
            )
        assert await pool.run(jobs.add, 1, 2) == 3
        assert pool.stats().timed_out == 2


async def test_a_job_whose_time_passes_in_the_queue_never_runs(tmp_path, gate):
    log, reached, until = tmp_path / "log", gate(), gate()
    async with Pool(1) as pool:
        running = pool.submit(jobs.meet, str(reached), str(until))
        late = pool.options(timeout=0.01).submit(jobs.note_and_add, str(log), 1, 1)
        with pytest.raises(JobTimeout, match="waited for a worker"):
            await late
        until.open()
        await running
        assert not log.exists()


async def test_higher_priority_runs_first(lend, tmp_path, gate):
    log, reached, until = tmp_path / "log", gate(), gate()
    async with lend() as pool:
        running = pool.submit(jobs.meet, str(reached), str(until))
        views = [pool.options(priority=p) for p in (0, 5, 0, 9)]
        going = [
            v.submit(jobs.note_and_add, str(log), n, 0) for n, v in enumerate(views)
        ]
        until.open()
        await asyncio.gather(running, *going)
        assert log.read_text().split() == ["3", "1", "0", "2"]


async def test_retries_after_a_lost_worker(tmp_path):
    async with Pool(1) as pool:
        view = pool.options(retries=1)
        assert await view.run(jobs.die_first_time, str(tmp_path / "died")) == 2
        assert pool.stats().retried == 1


async def test_retry_on_an_exception(lend):
    async with lend() as pool:
        view = pool.options(retries=2, retry_on=ValueError)
        job = view.submit(jobs.raise_value_error)
        with pytest.raises(ValueError, match="bad"):
            await job
        assert job.attempts == 3
        job = view.submit(int, None)
        with pytest.raises(TypeError):
            await job
        assert job.attempts == 1


async def test_leaving_normally_drains():
    async with Pool(1) as pool:
        going = [pool.submit(jobs.add, n) for n in range(20)]
    assert [job.result() for job in going] == list(range(20))
    assert pool.stats().completed == 20


async def test_leaving_by_an_exception_cancels(gate):
    reached = gate()
    going = []

    async def use_and_fail():
        async with Pool(1, grace=0.01) as pool:
            going.extend(pool.submit(jobs.loop_in_c, str(reached)) for _ in range(3))
            await reached.reached()
            raise RuntimeError("out")

    with pytest.raises(RuntimeError, match="out"):
        await use_and_fail()
    assert [job.cancelled() for job in going] == [True] * 3


async def test_close_is_bounded_and_idempotent(gate):
    reached = gate()
    pool = await Pool(1, grace=0.01).start()
    job = pool.submit(jobs.loop_in_c, str(reached))
    await reached.reached()
    await pool.close()
    await pool.aclose()
    assert job.cancelled()
    with pytest.raises(PoolClosed, match="is closed"):
        pool.submit(jobs.nothing)
    with pytest.raises(PoolClosed):
        await pool.start()


async def test_a_pool_that_was_never_started():
    pool = Pool(1)
    with pytest.raises(PoolClosed, match="was not started"):
        pool.submit(jobs.nothing)
    assert pool.stats() == PoolStats()
    await pool.close()


async def test_starting_twice_is_harmless():
    async with Pool(1) as pool:
        assert await pool.start() is pool


async def test_a_closing_cancelled_halfway_still_closes():
    pool = await Pool(1).start()
    task = asyncio.create_task(pool.close())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(PoolClosed):
        pool.submit(jobs.nothing)


async def test_ready_waits_for_all_workers_and_resize_changes_them():
    async with Pool(2) as pool:
        await pool.ready()
        assert pool.stats().workers == 2
        await pool.resize(3)
        assert pool.stats().workers == 3
        await pool.resize(1)
        assert await pool.run(jobs.add, 1, 1) == 2


async def test_initializer_preload_env_and_threads():
    async with Pool(
        1,
        initializer=jobs.initialize,
        initargs=("set up",),
        preload=["fractions"],
        env={"OFFLOOP_TEST": "yes"},
        threads_per_worker=3,
    ) as pool:
        assert await pool.run(jobs.initialized) == "set up"
        assert "fractions" in await pool.run(jobs.modules)
        assert await pool.run(jobs.environment, "OFFLOOP_TEST") == "yes"
        assert await pool.run(jobs.environment, "OMP_NUM_THREADS") == "3"


async def test_workers_get_one_blas_thread_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    async with Pool(1) as pool:
        assert await pool.run(jobs.environment, "OMP_NUM_THREADS") == "1"
        assert await pool.run(jobs.environment, "MKL_NUM_THREADS") == "5"


async def test_a_failing_initializer_is_an_error_at_the_start():
    with pytest.raises(StartError, match="no database today") as caught:
        async with Pool(2, initializer=jobs.fail_to_initialize):
            raise AssertionError("unreachable: it cannot start")
    assert "fail_to_initialize" in caught.value.output


async def test_a_preload_that_fails_is_an_error_at_the_start():
    with pytest.raises(StartError, match="no_such_module"):
        await Pool(1, preload=["no_such_module"]).start()


async def test_an_initializer_that_cannot_travel_is_an_error_at_the_start():
    with pytest.raises(NotOffloadable, match="initializer"):
        await Pool(1, initializer=jobs.echo, initargs=(threading.Lock(),)).start()


async def test_the_job_knows_itself():
    async with Pool(1) as pool:
        job = pool.options(timeout=60).submit(jobs.describe_job)
        number, attempt, deadline, worker = await job
        assert (number, attempt, worker) == (job.id, 1, job.worker)
        assert deadline is not None


async def test_timings_add_up(lend):
    async with lend() as pool:
        job = pool.submit(sum, range(1000))
        assert job.timings == (0, 0, 0, 0)
        await job
        assert all(value >= 0 for value in job.timings)
        assert job.timings.run > 0


async def test_story_tells_what_happened(tmp_path):
    async with Pool(1) as pool:
        job = pool.submit(jobs.die_by, signal.SIGKILL)
        assert f"job {job.id}" in pool.story(job)
        await asyncio.wait([job])
        assert "worker" in pool.story(job)
        assert "WorkerLost" in repr(job.exception())


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"n_jobs": 2}, "max_workers"),
        ({"processes": 2}, "max_workers"),
        ({"workers": 2}, "max_workers"),
        ({"colour": 2}, "there are: max_workers"),
        ({"preload": "numpy"}, "preload"),
        ({"timeout": "5"}, "timeout takes seconds"),
        ({"max_workers": 1.5}, "whole number"),
        ({"initializer": 3}, "callable"),
        ({"env": {"A": 1}}, "env maps"),
    ],
)
def test_a_wrong_word_or_type_is_a_type_error(words, match):
    with pytest.raises(TypeError, match=match):
        Pool(**words)


@pytest.mark.parametrize(
    "words",
    [
        {"max_workers": 0},
        {"max_workers": -1},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"retries": -1},
        {"engine": "gevent"},
        {"grace": -1},
        {"max_pending": 0},
    ],
)
def test_a_value_out_of_range_is_a_value_error(words):
    with pytest.raises(ValueError, match=next(iter(words))):
        Pool(**words)


def test_words_of_a_later_version_are_refused_and_not_ignored():
    with pytest.raises(UsageError, match="pinning to cores"):
        Pool(pin_cpus=True)


@pytest.mark.parametrize(
    "words",
    [
        {"min_workers": -1},
        {"min_workers": 3},
        {"idle_timeout": 0},
        {"memory_limit": "much"},
    ],
)
def test_sizes_out_of_range_are_value_errors(words):
    with pytest.raises(ValueError, match=next(iter(words))):
        Pool(2, **words)


def test_recycling_is_given_as_a_whole():
    with pytest.raises(TypeError, match=r"recycle takes a Recycle\(\.\.\.\), not 3"):
        Pool(recycle=3)
    assert Pool(recycle=Recycle(max_jobs=3))._options.recycle.max_jobs == 3


async def test_job_options_are_checked():
    pool = Pool(1)
    with pytest.raises(TypeError, match="run_timeout"):
        pool.options(time_limit=3)
    with pytest.raises(ValueError, match="on_full"):
        pool.options(on_full="explode")
    with pytest.raises(TypeError, match="retry_on"):
        pool.options(retry_on=(3,))
    with pytest.raises(TypeError, match="key takes what can be hashed"):
        pool.options(key=[])
    assert pool.options(timeout=5).options(priority=2)._job_options.timeout == 5


async def test_use_from_another_thread_is_refused():
    async with Pool(1) as pool:
        with pytest.raises(WrongLoop, match="thread"):
            await asyncio.to_thread(pool.submit, jobs.nothing)


async def test_use_from_another_loop_is_refused():
    async with Pool(1) as pool:

        async def elsewhere():
            pool.submit(jobs.nothing)

        with pytest.raises(WrongLoop, match="another event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())


async def test_use_in_a_forked_child_is_refused():
    async with Pool(1) as pool:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                pool.submit(jobs.nothing)
            except WrongLoop as error:
                code = 0 if "forked" in str(error) else 2
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert await pool.run(jobs.add, 1, 2) == 3


async def test_two_loops_in_two_threads_have_a_pool_each():
    async def work(number):
        async with Pool(1) as pool:
            return await pool.run(jobs.add, number, 1)

    first, second = await asyncio.gather(
        asyncio.to_thread(asyncio.run, work(1)), asyncio.to_thread(asyncio.run, work(2))
    )
    assert (first, second) == (2, 3)


async def test_a_pool_that_is_dropped_warns_and_leaves_nothing():
    pool = await Pool(1).start()
    with pytest.warns(ResourceWarning, match="never closed"):
        pool.__del__()
    await pool.close()


async def test_a_module_that_proved_harmless_is_there_in_later_workers():
    async with Pool(1) as pool:
        before = await pool.run(jobs.modules)
        assert "colorsys" not in before
        await pool.run(colorsys.rgb_to_hsv, 0.1, 0.2, 0.3)
        await asyncio.wait([pool.submit(jobs.die_by, signal.SIGKILL)])
        assert "colorsys" in await pool.run(jobs.modules)


@pytest.mark.parametrize(
    "effect",
    [
        "import threading as t; t.Thread(target=t.Event().wait, daemon=True).start()",
        "import socket; connection = socket.socket()",
    ],
)
async def test_a_module_that_begins_something_is_left_to_the_workers(tmp_path, effect):
    (tmp_path / "begins.py").write_text(f"{effect}\ndef answer(): return 42\n")
    module = types.ModuleType("begins")
    exec("def answer(): return 42", vars(module))
    async with Pool(1) as pool:
        await pool.run(sys.path.append, str(tmp_path))
        sys.modules["begins"] = module
        try:
            assert await pool.run(module.answer) == 42
        finally:
            del sys.modules["begins"]
        await asyncio.wait([pool.submit(jobs.die_by, signal.SIGKILL)])
        assert "begins" not in await pool.run(jobs.modules)


# Shares and limits


@pytest.mark.parametrize("engine", ["local", "inline"])
async def test_tracebacks_of_the_worker_begin_in_the_users_code(engine):
    async def fails(_=None):
        raise ValueError("here")

    def yields():
        yield 1
        raise ValueError("here")

    async def yields_too():
        yield 1
        raise ValueError("here")

    async def iterate(parts):
        async for _ in parts:
            pass

    context.request.set("carried, so that there is more between")
    async with Pool(1, engine=engine) as pool:
        for failing in (
            pool.run(jobs.raise_value_error, "here"),
            pool.run(fails),
            iterate(pool.map(jobs.raise_value_error, ["here"])),
            iterate(pool.map(fails, [1])),
            iterate(pool.stream(yields)),
            iterate(pool.stream(yields_too)),
        ):
            with pytest.raises(ValueError, match="here") as caught:
                await failing
            shown = str(caught.value.__cause__).splitlines()
            first = next(line for line in shown if line.startswith("  File"))
            assert "/tests/" in first, "\n".join(shown)
