"""A supervisor keeps the wanted number of real workers alive, and leaves nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import signal
import stat
import sys
import tempfile
import time

import psutil
import pytest

import jobs
from offloop import messages
from offloop.core.exits import ExitReason
from offloop.errors import StartError
from offloop.options import PoolOptions
from offloop.supervisor import Supervisor
from offloop.telemetry.events import Listeners
from offloop.wire.arena import create_file

_PATIENCE = 60


class Conductor:
    """Listens to workers as a conductor must, and notes what it is told."""

    def __init__(self, setup, **options):
        self.options = PoolOptions(**options)
        self.memory = create_file(1 << 20)
        memory = (self.memory, 1 << 20)
        self.listeners = Listeners("test")
        self.supervisor = Supervisor(self, self.options, self.listeners, setup, memory)
        self.loop = asyncio.get_running_loop()
        #: what `worker_gone` answers: a job is to blame
        self.blames = False
        #: what it was told and the test has not asked for, by kind
        self._told = {kind: asyncio.Queue() for kind in ("ready", "gone", "gave up")}

    async def told(self, kind):
        """Return what the next thing of a kind is about; other things may come first.

        While one worker still ends, the successor of another may be ready already.
        """
        async with asyncio.timeout(_PATIENCE):
            return await self._told[kind].get()

    async def ready(self, count=1):
        return [await self.told("ready") for _ in range(count)]

    async def close(self):
        await self.supervisor.close()
        os.close(self.memory)

    def silent(self):
        return all(queue.empty() for queue in self._told.values())

    def worker_made(self, worker):
        self.loop.add_reader(worker.channel.fd, self._read, worker)

    def worker_employ(self, worker):
        self._told["ready"].put_nowait(worker)

    def worker_retire(self, worker):
        worker.channel.send((messages.STOP,))

    def worker_ended(self, worker):
        self._read(worker)
        self.loop.remove_reader(worker.channel.fd)

    def worker_gone(self, worker, exit, reason):
        assert isinstance(reason, ExitReason)
        self._told["gone"].put_nowait((worker, exit))
        return self.blames

    def gave_up(self, error):
        self._told["gave up"].put_nowait(error)

    def _read(self, worker):
        while worker.channel.wants_reading():
            message = worker.channel.receive_nowait()
            if message is not None and message[0] == messages.READY:
                self.supervisor.worker_ready(worker, message[1])
            elif message is not None:
                assert message[0] == messages.BROKEN
                self.supervisor.worker_broken(worker, message[1])


@contextlib.asynccontextmanager
async def conductor(max_workers=1, setup=None, **options):
    """Start workers, and end them however the test ends."""
    encoded = None if setup is None else pickle.dumps(setup)
    one = Conductor(encoded, max_workers=max_workers, **options)
    one.supervisor.start(one.options.max_workers)
    try:
        yield one
    finally:
        await one.close()


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Return what writes a module that a forkserver can import."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def parent(worker):
    return psutil.Process(worker.pid).ppid()


# Numbers of workers


async def test_the_wanted_number_is_started(runtime):
    async with conductor(3) as one:
        workers = await one.ready(3)
        assert len({worker.pid for worker in workers}) == 3
        assert sorted(worker.slot for worker in workers) == [0, 1, 2]
        assert len({parent(worker) for worker in workers}) == 1
        assert set(one.supervisor.workers) == set(workers)
        assert one.supervisor.started == 3


async def test_sockets_are_private_and_gone_once_connected(own_runtime):
    async with conductor(1) as one:
        (folder,) = os.listdir(own_runtime)
        path = f"{own_runtime}/{folder}"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
        assert os.listdir(path) == ["1"]
        await one.ready()
        assert os.listdir(path) == []
    assert os.listdir(own_runtime) == []


async def test_scaling_starts_and_retires_workers():
    async with conductor(1) as one:
        await one.ready()
        one.supervisor.scale(3)
        await one.ready(2)
        one.supervisor.scale(1)
        for _ in range(2):
            worker, exit = await one.told("gone")
            assert (worker.reason, exit.code) == (ExitReason.SCALED_DOWN, 0)
        assert len(list(one.supervisor.workers)) == 1
        assert one.supervisor.started == 3


async def test_a_dismissed_pool_starts_nothing_more():
    async with conductor(2) as one:
        await one.ready(2)
        one.supervisor.dismiss(time.monotonic() + 60)
        for _ in range(2):
            _, exit = await one.told("gone")
            assert exit.code == 0
        assert list(one.supervisor.workers) == []


async def test_who_is_still_there_at_the_deadline_is_killed():
    async with conductor(1) as one:
        (worker,) = await one.ready()
        psutil.Process(worker.pid).suspend()
        one.supervisor.dismiss(time.monotonic() + 0.01)
        worker, exit = await one.told("gone")
        assert worker.ending == "asked to end"
        assert exit.signal == "SIGKILL"


async def test_closing_at_once_ends_workers_that_are_starting(own_runtime):
    async with conductor(2) as one:
        pass
    for _ in range(2):
        _, exit = await one.told("gone")
        assert exit.code is None
    assert list(one.supervisor.workers) == []
    assert os.listdir(own_runtime) == []


async def test_closing_what_was_never_started_is_harmless():
    await Conductor(None, max_workers=1).close()


# Deaths


async def test_a_worker_that_is_killed_is_replaced_in_its_slot():
    async with conductor(2) as one:
        first, second = await one.ready(2)
        os.kill(second.pid, signal.SIGKILL)
        worker, exit = await one.told("gone")
        assert worker is second
        assert (exit.pid, exit.signal) == (second.pid, "SIGKILL")
        assert exit.peak_rss > 1_000_000
        (third,) = await one.ready()
        assert third.slot == second.slot
        assert third.number not in (first.number, second.number)


@pytest.mark.slow
async def test_after_a_second_death_the_next_start_waits_for_its_delay():
    async with conductor(1) as one:
        for _ in range(3):
            (worker,) = await one.ready()
            os.kill(worker.pid, signal.SIGKILL)
            await one.told("gone")
        await one.ready()


@pytest.mark.parametrize("blames", [True, False])
async def test_ends_that_somebody_caused_never_make_it_give_up(blames):
    async with conductor(1) as one:
        one.blames = blames
        for _ in range(8):
            (worker,) = await one.ready()
            if blames:
                os.kill(worker.pid, signal.SIGKILL)
            else:
                one.supervisor.kill(worker, "because", ExitReason.CANCELLED)
            worker, exit = await one.told("gone")
            assert exit.signal == "SIGKILL"
            assert worker.ending == ("" if blames else "because")


async def test_a_crash_brings_its_last_words():
    async with conductor(1) as one:
        (worker,) = await one.ready()
        os.kill(worker.pid, signal.SIGSEGV)
        _, exit = await one.told("gone")
        assert exit.signal == "SIGSEGV"
        assert "Segmentation fault" in exit.output
        await one.ready()


# Failures to start


async def test_a_set_up_that_fails_is_told_with_its_traceback():
    async with conductor(2, setup=(jobs.fail_to_initialize, ()), name="web") as one:
        _, exit = await one.told("gone")
        assert (exit.code, "no database today" in exit.output) == (1, True)
        error = await one.told("gave up")
        await one.told("gone")  # the other one, which changes nothing any more
        assert one.silent()
        assert "the workers of pool 'web' cannot start: no process could" in str(error)
        assert "RuntimeError: no database today" in error.output
        assert error.output in str(error)


async def test_a_set_up_that_kills_says_nothing_more_than_that():
    async with conductor(1, setup=(jobs.die_by, (signal.SIGKILL,))) as one:
        await one.told("gone")
        error = await one.told("gave up")
        assert str(error).endswith("could start: was killed by SIGKILL")
        assert error.output == ""


@pytest.mark.slow
async def test_a_set_up_reaches_each_worker_and_each_forkserver(gate):
    began = gate()
    async with conductor(1, setup=(jobs.reach, (str(began),))) as one:
        (worker,) = await one.ready()
        assert await began.reached() == worker.pid
        psutil.Process(worker.pid).parent().kill()
        await one.told("gone")
        (worker,) = await one.ready()
        assert await began.reached() == worker.pid


async def test_a_preload_that_fails_is_told_with_its_traceback(write_module):
    name = write_module("fails_to_load", "1 / 0")
    async with conductor(1, preload=[name]) as one:
        await one.told("gone")
        error = await one.told("gave up")
        assert "preload of fails_to_load failed:" in error.output
        assert "ZeroDivisionError" in error.output


async def test_a_fork_that_fails_is_told(write_module):
    text = "import errno, os\ndef fork(): raise OSError(errno.EAGAIN, 'no room')\n"
    name = write_module("broken_fork", f"{text}os.fork = fork")
    async with conductor(1, preload=[name]) as one:
        worker, exit = await one.told("gone")
        assert (worker.pid, exit.pid) == (None, None)
        error = await one.told("gave up")
        assert error.output == "fork failed: no room"


async def test_an_interpreter_that_cannot_be_started_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    async with conductor(1) as one:
        await one.told("gone")
        error = await one.told("gave up")
        assert "the forkserver cannot be started" in error.output


# Forkservers


async def test_a_forkserver_that_is_killed_is_replaced_with_its_workers():
    async with conductor(2) as one:
        workers = await one.ready(2)
        psutil.Process(parent(workers[0])).kill()
        for _ in workers:
            worker, exit = await one.told("gone")
            assert (exit.pid, exit.code) == (worker.pid, None)
            assert exit.output == "its forkserver ended"
        replaced = await one.ready(2)
        assert len({parent(worker) for worker in replaced}) == 1


async def test_a_forkserver_that_has_ended_is_forgotten():
    async with conductor(1) as one:
        for _ in range(2):
            (worker,) = await one.ready()
            psutil.Process(parent(worker)).kill()
            await one.told("gone")
        await one.ready()
        row = one.supervisor._forkservers
        while len(row._all) > 1:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        assert row._all == {row._present}


async def test_the_loss_of_a_forkserver_counts_once_for_all_its_workers():
    async with conductor(4) as one:
        for _ in range(3):
            workers = await one.ready(4)
            psutil.Process(parent(workers[0])).kill()
            for _ in workers:
                await one.told("gone")
        await one.ready(4)
        assert one.supervisor._supervision.stats().deaths == 3


async def test_workers_that_were_about_to_be_made_are_not_counted_either(write_module):
    """They were never ready; that is not their fault either."""
    name = write_module("dies_late", "import os, jobs\njobs.die_by(9)")
    async with conductor(3, preload=[name]) as one:
        for _ in range(3):
            await one.told("gone")
        assert one.supervisor._supervision.stats().deaths == 1
        await one.told("gave up")


async def test_killing_workers_that_never_did_anything_counts():
    async with conductor(1) as one:
        (worker,) = await one.ready()
        os.kill(worker.pid, signal.SIGTERM)
        await one.told("gone")
        await one.ready()
        assert one.supervisor._supervision.stats().deaths == 1


async def test_workers_that_somebody_kills_again_and_again_are_replaced():
    async with conductor(1) as one:
        for _ in range(12):
            (worker,) = await one.ready()
            worker.page.begin(1, time.monotonic_ns())  # a job that it has run
            worker.page.rest()
            os.kill(worker.pid, signal.SIGTERM)
            await one.told("gone")
        assert one.supervisor.exits == {ExitReason.CRASHED: 12}
        await one.ready()


def notes_import(log, more=""):
    """Return a module's text that notes in which process it was imported."""
    return f"import os; open({str(log)!r}, 'a').write(f'{{os.getpid()}}\\n')\n{more}"


_STARTS_A_THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


async def test_a_learnt_module_is_imported_once_and_again_by_the_next_forkserver(
    tmp_path, write_module
):
    log = tmp_path / "log"
    name = write_module("harmless", notes_import(log))
    async with conductor(1) as one:
        (worker,) = await one.ready()
        first = parent(worker)
        one.supervisor.learn(name)
        one.supervisor.learn(name)
        one.supervisor.scale(2)  # its forkserver learns before it forks
        await one.ready()
        psutil.Process(first).kill()
        for _ in range(2):
            await one.told("gone")
        worker, _ = await one.ready(2)
        assert log.read_text().split() == [str(first), str(parent(worker))]


async def test_a_module_that_fails_is_not_forced_on_the_next_forkserver(
    tmp_path, write_module
):
    log = tmp_path / "log"
    name = write_module("harmful", notes_import(log, "1 / 0"))
    async with conductor(1) as one:
        (worker,) = await one.ready()
        one.supervisor.learn(name)
        one.supervisor.scale(2)  # what the forkserver says of it comes before
        await one.ready()
        psutil.Process(parent(worker)).kill()
        for _ in range(2):
            await one.told("gone")
        await one.ready(2)
        assert len(log.read_text().split()) == 1


async def told_of_the_thread(one):
    """Wait until the forkserver has said that it is not alone any more."""
    while one.supervisor._forkservers._present is not None:  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0)


async def test_beside_a_thread_no_worker_is_forked(tmp_path, write_module):
    log = tmp_path / "log"
    thread = write_module("starts_a_thread", _STARTS_A_THREAD)
    harmless = write_module("harmless", notes_import(log))
    later = write_module("later", notes_import(log))
    async with conductor(1) as one:
        (old,) = await one.ready()
        forkserver = psutil.Process(parent(old))
        one.supervisor.learn(thread)
        one.supervisor.learn(harmless)  # beside the thread now
        one.supervisor.scale(2)  # asked for before the answers have come
        (beside,) = await one.ready()
        assert parent(beside) == forkserver.pid
        await told_of_the_thread(one)
        one.supervisor.learn(later)  # there is nobody to tell now
        one.supervisor.scale(3)
        (new,) = await one.ready()
        assert parent(new) != forkserver.pid
        told = log.read_text().split()
        assert told == [str(forkserver.pid)] + [str(parent(new))] * 2
        for worker in (old, beside):
            one.supervisor.kill(worker, "because", ExitReason.CANCELLED)
        for _ in range(2):
            await one.told("gone")
        await asyncio.to_thread(psutil.wait_procs, [forkserver], _PATIENCE)
        assert not forkserver.is_running()  # without a worker it was let go
        await one.ready(2)


async def test_the_loss_of_an_old_forkserver_spares_the_workers_of_the_new(
    write_module,
):
    thread = write_module("starts_a_thread", _STARTS_A_THREAD)
    async with conductor(1) as one:
        (old,) = await one.ready()
        one.supervisor.learn(thread)
        one.supervisor.scale(2)
        (beside,) = await one.ready()
        await told_of_the_thread(one)
        one.supervisor.scale(3)
        (new,) = await one.ready()
        psutil.Process(parent(old)).kill()
        lost = [await one.told("gone") for _ in range(2)]
        assert {worker for worker, _ in lost} == {old, beside}
        replaced = await one.ready(2)
        assert {parent(worker) for worker in replaced} == {parent(new)}


# Surroundings


def environment(worker):
    with open(f"/proc/{worker.pid}/environ") as file:
        return dict(item.split("=", 1) for item in file.read().split("\0") if item)


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ({}, {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "5", "MINE": None}),
        ({"threads_per_worker": 3}, {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "5"}),
        (
            {"threads_per_worker": None},
            {"OMP_NUM_THREADS": None, "MKL_NUM_THREADS": "5"},
        ),
        (
            {"env": {"MKL_NUM_THREADS": "7", "MINE": "yes"}},
            {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "7", "MINE": "yes"},
        ),
    ],
)
async def test_variables_that_workers_get(monkeypatch, options, variables):
    monkeypatch.setenv("MKL_NUM_THREADS", "5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    async with conductor(1, **options) as one:
        (worker,) = await one.ready()
        found = environment(worker)
        assert {name: found.get(name) for name in variables} == variables


@pytest.mark.parametrize(
    ("runtime_dir", "session_dir", "used"),
    [
        ("first", "second", "first"),
        (None, "second", "second"),
        (None, None, "third"),
        ("missing", "second", "third"),
        ("long" * 30, "second", "third"),
    ],
)
async def test_where_the_sockets_are(
    monkeypatch, runtime, runtime_dir, session_dir, used
):
    for name in ("first", "second", "third"):
        os.mkdir(f"{runtime}/{name}")
    for variable, name in (
        ("OFFLOOP_RUNTIME_DIR", runtime_dir),
        ("XDG_RUNTIME_DIR", session_dir),
    ):
        monkeypatch.setenv(variable, f"{runtime}/{name}" if name else "")
    monkeypatch.setattr(tempfile, "tempdir", f"{runtime}/third")
    async with conductor(1) as one:
        assert len(os.listdir(f"{runtime}/{used}")) == 1
        await one.ready()
    for name in ("first", "second", "third"):
        os.rmdir(f"{runtime}/{name}")


async def test_nowhere_to_put_the_sockets_is_an_error(monkeypatch):
    def refuse(**where):
        raise PermissionError(where["dir"])

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    one = Conductor(None, max_workers=1)
    with pytest.raises(StartError, match="set OFFLOOP_RUNTIME_DIR to one that"):
        one.supervisor.start(one.options.max_workers)
    await one.close()
