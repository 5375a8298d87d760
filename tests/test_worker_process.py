"""What only a worker in a process of its own can show."""

from __future__ import annotations

import asyncio
import atexit
import io
import random
import signal
import sys
import threading

import pytest

import jobs
from forkservers import forkserver, run
from offloop import messages
from offloop import worker as module


async def run_and_leave(server, number, fn):
    """Return what a worker of one job gives; it ends in order."""
    worker = await server.hired(number)
    value = await run(worker, fn)
    worker.channel.send((messages.STOP,))
    assert (await server.heard(messages.EXITED))[2] == 0
    return value


async def test_a_forked_worker_is_a_clean_process(tmp_path):
    def signals():
        handlers = map(signal.getsignal, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
        return [*handlers, signal.set_wakeup_fd(-1)]

    def main_module():
        return sorted(vars(sys.modules["__main__"])), sys.argv

    async with forkserver(str(tmp_path)) as server:
        worker = await server.hired(1)
        assert await run(worker, jobs.pid) == worker.pid
        assert await run(worker, threading.active_count) == 1
        ignored, *usual = await run(worker, signals)
        assert ignored == signal.SIG_IGN
        assert usual == [signal.SIG_DFL, signal.SIG_DFL, -1]
        names, argv = await run(worker, main_module)
        assert names == ["__doc__", "__loader__", "__name__", "__package__", "__spec__"]
        assert argv == [""]


@pytest.mark.parametrize("preload", [[], ["numpy.random"]])
async def test_no_two_workers_have_the_same_random_numbers(tmp_path, preload):
    def numbers():
        numpy_random = sys.modules.get("numpy.random")
        return random.random(), numpy_random and numpy_random.random()

    one_thread = {"OPENBLAS_NUM_THREADS": "1"}
    async with forkserver(str(tmp_path), preload, **one_thread) as server:
        first, second = [
            await run_and_leave(server, number, numbers) for number in (1, 2)
        ]
        assert first[0] != second[0]
        assert (first[1] is None) == (second[1] is None) == (not preload)
        assert not preload or first[1] != second[1]


@pytest.mark.parametrize("words", ["unflushed words", None])
async def test_leaving_it_does_what_an_interpreter_does(tmp_path, capfd, words):
    touched = tmp_path / "touched"

    def prepare():
        atexit.register(touched.touch)
        if words is None:
            sys.stdout = sys.stderr = None
        else:
            sys.stdout.write(words)

    async with forkserver(str(tmp_path)) as server:
        worker = await server.hired(1)
        await run(worker, prepare)
        worker.channel.send((messages.STOP,))
        assert (await server.heard(messages.EXITED))[2] == 0
    assert touched.exists()
    assert capfd.readouterr() == (words or "", "")


@pytest.mark.parametrize("closed", [False, True])
def test_what_atexit_functions_print_is_flushed_too(monkeypatch, closed):
    class Stream(io.StringIO):
        def flush(self):
            told.append("flushed")

    told = []
    monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: told.append("functions"))
    monkeypatch.setattr(sys, "stdout", None if closed else Stream())
    monkeypatch.setattr(sys, "stderr", Stream())
    module._leave()
    assert told == ["functions", *["flushed"] * (1 if closed else 2)]


async def test_a_crash_leaves_its_last_words_and_names_its_job(tmp_path):
    async with forkserver(str(tmp_path)) as server:
        worker = await server.hired(1)
        crash = asyncio.create_task(run(worker, jobs.segfault))
        code = (await server.heard(messages.EXITED))[2]
        crash.cancel()
        assert code == -signal.SIGSEGV
        assert "in segfault" in worker.last_words()
        assert worker.page.running() == 1


async def test_a_signal_reaches_a_job_in_a_forked_worker(tmp_path, gate):
    reached = gate()
    async with forkserver(str(tmp_path)) as server:
        worker = await server.hired(1)
        endless = asyncio.create_task(run(worker, jobs.loop_in_python, str(reached)))
        await reached.reached()
        worker.page.interrupt(1)
        worker.send_signal(messages.WAKE_SIGNAL)
        with pytest.raises(AssertionError):
            await endless
        assert (await server.heard(messages.EXITED))[2] == 0
