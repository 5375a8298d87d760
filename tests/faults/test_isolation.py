"""A process for each job, and what a job in the sandbox cannot do."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import fcntl
import os
import resource
import socket
import subprocess
import termios
import threading

import pytest

import jobs
from offloop import Pool, Recycle, landlock, sandbox
from offloop.engines import call
from offloop.errors import JobTimeout, MemoryLimitExceeded, UsageError, WorkerLost

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
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").rename(tmp_path / "folder" / "file")
        os.kill(os.getpid(), 0)
        os.sched_setaffinity(0, os.sched_getaffinity(0))
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


def with_pipe(act):
    """Return a job that does something with a descriptor that is no terminal."""
    return lambda: act(os.pipe()[0])


#: what a job tries, by what docs/reliability.md calls it
REFUSED = {
    "a network": connect,
    "a network, in a thread": connect_from_a_thread,
    "talk to other programs": lambda: socket.socket(socket.AF_UNIX),
    "a datagram to them": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM),
    "a further process": os.fork,
    "a program": lambda: subprocess.run(["true"], check=True),
    "another program in its place": lambda: os.execv("/bin/true", ["true"]),
    "a signal": lambda: os.kill(os.getppid(), 0),
    "a signal to all": lambda: os.kill(-1, 0),
    "a signal to a group": lambda: os.kill(0, 0),
    "a signal by a file": with_pipe(
        lambda fd: fcntl.fcntl(fd, fcntl.F_SETOWN, os.getppid())
    ),
    "a signal by a socket": with_pipe(lambda fd: fcntl.ioctl(fd, 0x8901, bytes(4))),
    "typing": with_pipe(lambda fd: fcntl.ioctl(fd, termios.TIOCSTI, b"x")),
    "a priority": lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19),
    "limits": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE),
    "cores": lambda: os.sched_setaffinity(os.getppid(), {0}),
}

#: the same by files, which Landlock keeps it from
KEPT_OUT = {
    what: lambda what=what: os.open(f"/proc/{os.getppid()}/{what}", os.O_RDONLY)
    for what in ("mem", "fd/0")
}


async def test_in_the_sandbox_there_is_no():
    jobs_by_name = REFUSED | (KEPT_OUT if landlock.version() else {})
    async with Pool(2, isolation="process", sandbox=True) as pool:
        going = {name: pool.submit(job) for name, job in jobs_by_name.items()}
        await asyncio.wait(going.values())
    errors = {name: job.exception() for name, job in going.items()}
    allowed = {n: e for n, e in errors.items() if not isinstance(e, PermissionError)}
    assert allowed == {}


async def test_each_call_that_is_refused_is_one():
    """All by their number, with arguments that none of them would do anything with."""
    processor = sandbox._PROCESSORS[os.uname().machine]

    def call_all():
        libc = ctypes.CDLL(None, use_errno=True)
        codes = {}
        for number in numbers:
            ctypes.set_errno(0)
            assert libc.syscall(number, -1, -1, -1, -1, -1, -1) == -1, number
            codes[number] = ctypes.get_errno()
        return codes

    numbers = [*processor.refused, *processor.own, *processor.own_or_zero]
    numbers.append(processor.pair)
    assert len(numbers) > 80
    assert await sandboxed(call_all) == dict.fromkeys(numbers, errno.EPERM)


async def test_it_is_for_good_and_for_all_threads():
    def look():
        with open("/proc/self/status") as file:
            lines = dict(line.split(":\t") for line in file.read().splitlines())
        threads = os.listdir("/proc/self/task")
        filters = set()
        for thread in threads:
            with open(f"/proc/self/task/{thread}/status") as file:
                text = file.read()
            filters.update(li for li in text.splitlines() if li.startswith("Seccomp:"))
        return lines["NoNewPrivs"], len(threads), filters

    privileges, threads, filters = await sandboxed(look)
    assert privileges == "1"
    assert threads > 1, "those of ZeroMQ"
    assert filters == {"Seccomp:\t2"}


async def test_limits_of_time_and_memory_hold_in_it(gate):
    options = {"grace": 0.02, "memory_limit": "400MB"}
    async with Pool(1, isolation="process", sandbox=True, **options) as pool:
        with pytest.raises(MemoryLimitExceeded):
            await pool.run(jobs.take, 1 << 30)
        with pytest.raises(JobTimeout):
            await pool.options(run_timeout=0.05).run(jobs.loop_in_c, str(gate()))
        assert await pool.run(jobs.add, 1, 2) == 3


async def test_limits_are_lowered():
    names = [name for name, most in sandbox._LIMITS.items() if not most]

    def look():
        return [resource.getrlimit(getattr(resource, name)) for name in names]

    assert {"RLIMIT_CORE", "RLIMIT_MEMLOCK", "RLIMIT_NICE", "RLIMIT_RTPRIO"} < {*names}
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
