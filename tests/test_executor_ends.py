"""How executors end: by a shutdown, with the program, or because nobody holds them."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import CancelledError, wait
from concurrent.futures.process import BrokenProcessPool

import psutil
import pytest

import jobs
import jobs_odd
from offloop import Executor
from offloop.errors import (
    PoolClosed,
    WrongLoop,
)


@pytest.fixture
def executor():
    with Executor(2) as executor:
        yield executor


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


FORCES = ["terminate_workers", "kill_workers"]


@pytest.mark.parametrize("force", FORCES)
def test_workers_that_are_ended_take_what_they_run_along(pipe, tmp_path, force):
    reached, cleaned = pipe(), tmp_path / "cleaned"
    executor = Executor(1, grace=10)
    running = executor.submit(jobs.clean_up_when_stopped, reached.path, str(cleaned))
    worker = psutil.Process(reached.reached())
    queued = [executor.submit(jobs.add, n) for n in range(100)]
    results = executor.map(jobs.add, range(100))
    getattr(executor, force)()
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(jobs.nothing)
    with pytest.raises(BrokenProcessPool, match=f"{force} of executor") as caught:
        running.result()
    assert caught.value.reason == "shutdown"
    assert wait(queued).not_done == set()
    assert all(future.cancelled() for future in queued)
    with pytest.raises(CancelledError):
        next(results)
    executor.shutdown()
    assert not worker.is_running()
    assert cleaned.exists() is (force == "terminate_workers")


@pytest.mark.parametrize("force", FORCES)
def test_workers_may_be_ended_at_any_time(pipe, force):
    unused = Executor(1)
    getattr(unused, force)()
    unused.shutdown()
    with pytest.raises(RuntimeError, match="shut down"):
        unused.submit(jobs.nothing)

    starting = Executor(1)
    future = starting.submit(jobs.loop_in_python, pipe().path)
    getattr(starting, force)()
    starting.shutdown()
    with pytest.raises((CancelledError, BrokenProcessPool)):
        future.result(0)
    with pytest.raises(PoolClosed, match="shut down"):
        starting.submit(jobs.nothing)

    with Executor(1) as idle:
        assert idle.submit(jobs.add, 1).result() == 1
        getattr(idle, force)()
        getattr(idle, force)()

    with Executor(1) as robbed:
        with pytest.raises(BrokenProcessPool):
            robbed.submit(jobs.die_with_code, 1).result()
        getattr(robbed, force)()


def test_who_is_asked_to_stop_and_does_not_may_be_killed(pipe):
    reached = pipe()
    with Executor(1, grace=600) as executor:
        future = executor.submit(jobs.loop_in_c, reached.path)
        reached.reached()
        executor.terminate_workers()
        assert isinstance(future.exception(), BrokenProcessPool)
        executor.kill_workers()


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


def test_shutdown_at_once_lets_the_first_calls_run_and_cancels_the_rest():
    executor = Executor(2)
    futures = [executor.submit(jobs.add, n) for n in range(50)]
    executor.shutdown(cancel_futures=True)
    ended = [future.result() for future in futures if not future.cancelled()]
    assert ended[:2] == [0, 1]
    assert len(ended) < 50
