"""A process for each job, and what a job in the sandbox cannot do."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import subprocess
import threading

import pytest

import jobs
from offloop import Pool, Recycle, sandbox
from offloop.engines import call
from offloop.errors import UsageError, WorkerLost

pytestmark = pytest.mark.skipif(not sandbox.is_possible(), reason="Linux only")


async def test_each_job_has_a_process_of_its_own():
    async with Pool(2, isolation="process") as pool:
        pids = await asyncio.gather(*(pool.run(jobs.pid) for _ in range(30)))
        assert len(set(pids)) == 30
        assert pool.stats().workers_lost == 0


async def test_what_a_job_leaves_behind_no_other_job_sees():
    async with Pool(2, isolation="process") as pool:
        await asyncio.gather(*(pool.run(jobs.initialize, n) for n in range(10)))
        found = await asyncio.gather(*(pool.run(jobs.initialized) for _ in range(10)))
    assert found == [None] * 10


async def test_other_limits_hold_beside_it():
    recycle = Recycle(max_age=100, max_rss="1GB")
    pool = Pool(1, isolation="process", recycle=recycle)
    assert pool._options.recycle == Recycle(max_jobs=1, max_age=100, max_rss="1GB")


async def sandboxed(function, *args):
    async with Pool(1, isolation="process", sandbox=True) as pool:
        return await pool.run(function, *args)


async def test_ordinary_work_is_not_disturbed(tmp_path):
    def work():
        thread = threading.Thread(target=lambda: done.append(1))
        done = []
        thread.start()
        thread.join()
        (tmp_path / "file").write_text("files are not restricted")
        os.kill(os.getpid(), 0)
        return done, asyncio.run(asyncio.sleep(0, "slept")), sum(range(1000))

    assert await sandboxed(work) == ([1], "slept", 499500)
    assert await sandboxed(bytes, 300_000) == bytes(300_000)


def connect():
    socket.create_connection(("127.0.0.1", 9), 1)


def connect_from_a_thread():
    errors = []

    def run():
        try:
            connect()
        except OSError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    raise errors[0]


@pytest.mark.parametrize(
    "function",
    [
        connect,
        connect_from_a_thread,
        os.fork,
        lambda: socket.socket(socket.AF_UNIX),
        lambda: subprocess.run(["true"], check=True),
        lambda: os.kill(os.getppid(), 0),
        lambda: os.kill(-1, 0),
        lambda: os.kill(0, 0),
        lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19),
        lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE),
    ],
)
async def test_in_the_sandbox_there_is_no(function):
    with pytest.raises(PermissionError):
        await sandboxed(function)


async def test_limits_are_lowered():
    names = ["RLIMIT_CORE", "RLIMIT_MEMLOCK", "RLIMIT_NICE", "RLIMIT_RTPRIO"]

    def look():
        return [resource.getrlimit(getattr(resource, name)) for name in names]

    assert await sandboxed(look) == [(0, 0)] * len(names)
    _, most = await sandboxed(resource.getrlimit, resource.RLIMIT_NOFILE)
    assert most <= sandbox.FILES


async def test_it_is_closed_before_a_job_and_not_before_the_initializer():
    def open_socket():
        with socket.socket():
            pass

    options = {"isolation": "process", "sandbox": True, "initializer": open_socket}
    async with Pool(1, **options) as pool:
        with pytest.raises(PermissionError):
            await pool.run(open_socket)


async def test_a_crash_in_the_sandbox_is_a_crash():
    with pytest.raises(WorkerLost, match="SIGSEGV"):
        await sandboxed(jobs.segfault)


async def test_a_kernel_that_refuses_the_sandbox_is_an_error_of_the_job(monkeypatch):
    def forbid_filters():
        from offloop import sandbox

        processor = sandbox._PROCESSORS[os.uname().machine]
        processor.refused = [*processor.refused, processor.seccomp]
        sandbox.enter()

    options = {"isolation": "process", "sandbox": True, "initializer": forbid_filters}
    async with Pool(1, **options) as pool:
        with pytest.raises(OSError, match="the job was not run"):
            await pool.run(jobs.nothing)


async def test_a_sandbox_that_cannot_be_had_is_refused(monkeypatch):
    monkeypatch.setattr(call.sandbox, "is_possible", lambda: False)
    with pytest.raises(UsageError, match="needs Linux on x86-64 or ARM64"):
        await sandboxed(jobs.nothing)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"sandbox": True}, "needs isolation"),
        ({"sandbox": True, "isolation": "process", "engine": "inline"}, "inline"),
        ({"isolation": "thread"}, "isolation is one of process"),
    ],
)
def test_what_cannot_be_is_refused_at_the_call(words, why):
    with pytest.raises(ValueError, match=why):
        Pool(1, **words)
