"""A forkserver obeys its parent, and leaves nothing behind when that is gone."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import psutil
import pytest

import jobs
from forkservers import Forkserver, forkserver, run
from offloop import leftovers, messages, ties, worker
from offloop.wire.lifeline import Lifeline


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Return what writes a module that a forkserver can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def write(name, text):
        (folder / f"{name}.py").write_text(text)
        return name

    return write


@pytest.fixture
def folder(tmp_path):
    """Return a directory for the sockets of one forkserver."""
    path = tmp_path / "sockets"
    path.mkdir()
    return path


_WITHOUT_PIDFD = "import os; del os.pidfd_open"
_STARTS_A_THREAD = """
import threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
"""


@pytest.fixture(params=["pidfd", "no pidfd"])
def system(request, write_module):
    """Return variables that make the forkserver's system one with or without pidfds."""
    if request.param == "pidfd":
        return {}
    write_module("sitecustomize", _WITHOUT_PIDFD)  # imported before anything else
    return {"PYTHONPATH": sys.path[0]}


# Workers


async def test_it_forks_workers_and_tells_of_their_ends(folder, system):
    async with forkserver(str(folder), **system) as server:
        first, second = await server.hired(1), await server.hired(2)
        assert psutil.Process(first.pid).ppid() == psutil.Process(second.pid).ppid()
        before = time.monotonic()
        first.channel.send((messages.STOP,))
        number, pid, code, peak, ended = await server.heard(messages.EXITED)
        assert (number, pid, code) == (1, first.pid, 0)
        assert peak > 1_000_000
        assert before < ended < time.monotonic()
        assert await run(second, jobs.pid) == second.pid
        second.channel.send((messages.STOP,))
        assert (await server.heard(messages.EXITED))[:3] == (2, second.pid, 0)


async def test_it_passes_signals_on(folder, system):
    async with forkserver(str(folder), **system) as server:
        await server.hired(1)
        await server.hired(2)
        server.handle.order((messages.SIGNAL, 2, int(signal.SIGTERM)))
        number, _, code, _, _ = await server.heard(messages.EXITED)
        assert (number, code) == (2, -signal.SIGTERM)
        server.handle.order((messages.SIGNAL, 2, int(signal.SIGKILL)))  # gone: no error
        server.handle.order((messages.SIGNAL, 1, int(signal.SIGKILL)))
        assert (await server.heard(messages.EXITED))[0] == 1


async def test_workers_do_not_hold_what_is_the_forkservers(folder, system):
    async with forkserver(str(folder), **system) as server:
        first = await server.hired(1)
        second = await server.hired(2)
        holders = [len(os.listdir(f"/proc/{w.pid}/fd")) for w in (first, second)]
        assert holders[0] == holders[1]


async def test_each_worker_gets_the_set_up(folder):
    async with forkserver(str(folder)) as server:
        setup = pickle.dumps((jobs.initialize, ("set up",)))
        server.handle.order((messages.SETUP, setup))
        for number in (1, 2):
            assert await run(await server.hired(number), jobs.initialized) == "set up"


async def test_a_fork_that_fails_is_told_as_an_end(folder, write_module):
    text = "import errno, os\ndef fork(): raise OSError(errno.EAGAIN, 'no room')\n"
    broken = write_module("broken_fork", f"{text}os.fork = fork")
    async with forkserver(str(folder), [broken]) as server:
        for number in (1, 2):
            server.hire(number)
            told = await server.heard(messages.EXITED)
            assert told == (number, 0, None, 0, "fork failed: no room")


async def test_a_worker_that_cannot_even_begin_shows_why(folder, capfd):
    async with forkserver(str(folder)) as server:
        server.hire(1, address="x" * 200)
        await server.heard(messages.STARTED)
        code = (await server.heard(messages.EXITED))[2]
        assert code == 1
    assert "too long" in capfd.readouterr().err


async def test_orders_that_it_does_not_know_are_passed_over(folder):
    async with forkserver(str(folder)) as server:
        server.handle.order((99, "from a later version"))
        await server.hired(1)


async def test_marks_come_again_and_are_never_borne_by_two(folder, write_module):
    text = "from offloop import leftovers\nleftovers._NUMBER_BITS = 2\n"
    async with forkserver(str(folder), [write_module("few_marks", text)]) as server:
        first = leftovers.mark_of((await server.hired(1)).pid)
        seen = set()
        for number in range(2, 8):
            worker = await server.hired(number)
            seen.add(leftovers.mark_of(worker.pid))
            worker.channel.send((messages.STOP,))
            await server.heard(messages.EXITED)
        assert len(seen) == 3
        assert first not in seen


# Modules


async def test_a_module_that_it_learnt_is_there_in_later_workers(folder, write_module):
    write_module("harmless", "")
    async with forkserver(str(folder)) as server:
        assert "harmless" not in await run(await server.hired(1), jobs.modules)
        server.handle.order((messages.LEARN, "harmless"))
        assert await server.heard(messages.LEARNED) == ("harmless", "", True)
        assert "harmless" in await run(await server.hired(2), jobs.modules)


@pytest.mark.parametrize(
    ("text", "reason", "alone"),
    [
        ("import no_such_module", "ModuleNotFoundError: No module named", True),
        ("raise SystemExit('bye')", "SystemExit: bye", True),
        (_STARTS_A_THREAD, "its import starts a thread", False),
        (f"{_STARTS_A_THREAD}\n1 / 0", "ZeroDivisionError: division", False),
    ],
)
async def test_a_module_with_which_something_is_wrong(
    folder, write_module, text, reason, alone
):
    write_module("harmful", text)
    async with forkserver(str(folder)) as server:
        server.handle.order((messages.LEARN, "harmful"))
        told = await server.heard(messages.LEARNED)
        assert told[0] == "harmful"
        assert told[1].startswith(reason)
        assert told[2] is alone


async def test_what_is_preloaded_is_there_in_each_worker(folder, write_module):
    write_module("wanted", "")
    async with forkserver(str(folder), ["fractions", "wanted"]) as server:
        loaded = await run(await server.hired(1), jobs.modules)
        assert {"fractions", "wanted"} <= set(loaded)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit('bye')", "SystemExit: bye"),
        (_STARTS_A_THREAD, "importing fractions, harmful started a thread"),
    ],
)
async def test_a_preload_that_fails_ends_it(folder, write_module, text, says):
    write_module("harmful", text)
    server = Forkserver(str(folder), ["fractions", "harmful"], {})
    name, why = await server.heard(messages.FAILED)
    assert name.endswith("harmful")
    assert says in why
    await server.heard(None)
    await server.close()
    assert folder.exists()  # its parent lives, and tidies up itself


# Ends


async def test_dismissed_it_kills_its_workers_and_leaves_the_folder(folder, system):
    async with forkserver(str(folder), **system) as server:
        worker = psutil.Process((await server.hired(1)).pid)
        worker.suspend()
        server.handle.hang_up()
        await server.handle.gone()
        assert not worker.is_running()
        assert folder.exists()


async def test_abandoned_it_kills_its_workers_and_removes_the_folder(folder, system):
    """Its parent hangs up while no goodbye finds room in the line."""
    async with forkserver(str(folder), **system) as server:
        worker = psutil.Process((await server.hired(1)).pid)
        process = worker.parent()
        process.suspend()
        server.handle.order((messages.SETUP, bytes(3_000_000)))
        server.handle.hang_up()
        process.resume()
        await server.handle.gone()
        assert not worker.is_running()
        assert not folder.exists()


_PARENT = """
import os, subprocess, sys
line, folder, *preload = sys.argv[1:]
program = (
    "import sys; from offloop.forkserver import main;"
    "main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], 1, sys.argv[4:])"
)
command = [sys.executable, "-c", program, line, str(os.getpid()), folder, *preload]
subprocess.Popen(command, pass_fds=[int(line)])
print("started", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def parent_of_forkserver(folder, *preload):
    """Start a parent that ends when told to; the lifeline is held open here."""
    line, theirs = Lifeline.pair()
    line._line.setblocking(True)
    line._line.settimeout(60)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", _PARENT, str(theirs.fileno()), str(folder)]
    with contextlib.closing(line), theirs:
        parent = subprocess.Popen(
            [*command, *preload],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with parent:
            assert parent.stdout.readline() == b"started\n"
            theirs.close()
            yield line, parent


def end(parent):
    parent.stdin.close()
    parent.wait()


def test_a_parent_whose_line_somebody_else_holds_open_is_missed(folder):
    with parent_of_forkserver(folder) as (line, parent):
        assert line.receive()[0][0] == messages.LISTENING
        end(parent)
        assert line.receive() == []
        assert line.ended
    assert not folder.exists()


@pytest.mark.parametrize("text", ["", "1 / 0"])
def test_a_parent_that_ends_during_the_preload_is_missed(
    folder, write_module, gate, capfd, text
):
    reached, until = gate(), gate()
    waits = f"import jobs; jobs.meet({str(reached)!r}, {str(until)!r}); {text}"
    name = write_module("waits_for_the_test", waits)
    with parent_of_forkserver(folder, name) as (line, parent):
        with open(str(reached)) as file:
            assert file.readline()
        end(parent)
        until.open()
        while not line.ended:
            line.receive()
    assert not folder.exists()
    assert capfd.readouterr().err == ""


def test_a_parent_that_ended_before_it_began_is_missed(folder):
    ours, theirs = Lifeline.pair()
    with contextlib.closing(ours), theirs:
        program = (
            "import sys; from offloop.forkserver import main;"
            "main(int(sys.argv[1]), 1, sys.argv[2], 1, [])"  # 1 is not its parent
        )
        command = [sys.executable, "-c", program, str(theirs.fileno()), str(folder)]
        ended = subprocess.run(command, pass_fds=[theirs.fileno()], capture_output=True)
        assert (ended.returncode, ended.stderr) == (0, b"")
    assert not folder.exists()


# Where the system is another one


def test_what_the_kernel_refuses_is_an_error():
    with pytest.raises(OSError, match="Invalid argument"):
        ties.tie_to_parent(os.getppid(), 9999)


@pytest.mark.parametrize(("parent", "lives"), [(os.getppid(), True), (1, False)])
def test_where_the_kernel_cannot_be_asked_the_parent_is_compared(
    monkeypatch, parent, lives
):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert ties.tie_to_parent(parent, 9999) is lives


def test_a_parent_that_is_gone_cannot_be_watched():
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    assert ties.open_parent(process.pid) is None


def test_where_there_is_no_proc_pythons_threads_count(monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    assert worker.thread_count() >= threading.active_count()
    monkeypatch.setattr(os, "listdir", missing)
    assert worker.thread_count() == threading.active_count()
    assert worker._footprint() == (threading.active_count(), 0)
