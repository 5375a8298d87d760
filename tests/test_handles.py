"""What a parent holds of its children, and that it lets go of all of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import psutil
import pytest

from forkservers import Forkserver, forkserver
from offloop import handles, messages
from offloop.handles import ForkserverHandle, WorkerExit
from offloop.wire.status import StatusPage


@pytest.mark.parametrize(
    ("code", "name", "text"),
    [
        (0, None, "exited with code 0"),
        (3, None, "exited with code 3"),
        (-9, "SIGKILL", "was killed by SIGKILL"),
        (-40, "signal 40", "was killed by signal 40"),
        (None, None, "ended"),
    ],
)
def test_an_exit_says_what_ended_the_process(code, name, text):
    exit = WorkerExit(pid=1, code=code, peak_rss=0, ended_at=0.0)
    assert exit.signal == name
    assert str(exit) == text


async def test_a_worker_is_signalled_through_its_pidfd(tmp_path):
    async with forkserver(str(tmp_path)) as server:
        worker = await server.hired(1)
        worker.send_signal(signal.SIGKILL)
        number, pid, code, *_ = await server.heard(messages.EXITED)
        assert (number, pid, code) == (1, worker.pid, -signal.SIGKILL)
        worker.send_signal(signal.SIGKILL)  # gone: that is no error


async def test_a_worker_that_was_not_told_yet_is_signalled_by_its_forkserver(tmp_path):
    async with forkserver(str(tmp_path)) as server:
        worker = server.hire(1)
        assert worker.pid is None
        worker.send_signal(signal.SIGKILL)
        await server.heard(messages.STARTED)
        number, _, code, _, _ = await server.heard(messages.EXITED)
        assert (number, code) == (1, -signal.SIGKILL)


async def test_last_words_are_the_failed_set_up_or_the_crash(tmp_path):
    async with forkserver(str(tmp_path)) as server:
        worker = await server.hired(1)
        assert worker.last_words() == ""
        StatusPage.prepare_last_words(worker._page_file)
        os.write(worker._page_file, b"Fatal Python error")
        assert worker.last_words() == "Fatal Python error"
        worker.broken = "no database today"
        assert worker.last_words() == "no database today"


async def test_an_order_larger_than_the_sockets_room_arrives_whole(tmp_path):
    server = Forkserver(str(tmp_path), [], {})
    server.handle.order((messages.SETUP, bytes(3_000_000)))
    server.handle.order((messages.SETUP, bytes(2_000_000)))
    server.handle.order((messages.LEARN, "fractions"))
    await server.heard(messages.LISTENING)
    assert await server.heard(messages.LEARNED) == ("fractions", "", True)
    await server.close()


async def test_its_end_is_told(tmp_path):
    told = []
    handle = ForkserverHandle(
        str(tmp_path), [], dict(os.environ), lambda *heard: None, told.append
    )
    assert told == []
    handle.hang_up()
    await handle.gone()
    assert told == [handle]


async def test_after_hanging_up_nothing_is_said_or_heard(tmp_path):
    async with forkserver(str(tmp_path)) as server:
        server.handle.hang_up()
        server.handle.order((messages.LEARN, "fractions"))
        server.handle.hang_up()
        await server.handle.gone()
        assert server._heard.empty()
        assert tmp_path.exists()  # it was dismissed: the folder is ours


async def test_the_end_of_the_process_is_told_once(tmp_path):
    async with forkserver(str(tmp_path)) as server:
        worker = await server.hired(1)
        psutil.Process(worker.pid).parent().kill()
        await server.heard(None)
        await server.handle.gone()
        assert server._heard.empty()


async def test_an_interpreter_that_cannot_be_started(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    server = Forkserver(str(tmp_path), [], {})
    await server.heard(None)
    await server.handle.gone()
    assert "the forkserver cannot be started: " in server.handle.failure
    assert "No such file" in server.handle.failure
    await server.close()


async def test_it_runs_with_the_flags_of_this_interpreter_and_its_path(
    tmp_path, monkeypatch
):
    (tmp_path / "only_here.py").write_text("import sys; assert not sys.flags.optimize")
    monkeypatch.syspath_prepend(str(tmp_path))
    async with forkserver(str(tmp_path), ["only_here"]):
        pass


async def test_one_that_does_not_listen_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(handles, "PATIENCE", 0.01)
    async with forkserver(str(tmp_path)) as server:
        worker = psutil.Process((await server.hired(1)).pid)
        process = worker.parent()
        process.suspend()
        server.handle.hang_up()
        await server.handle.gone()
        assert not process.is_running()


async def test_one_that_does_not_exist_yet_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(handles, "PATIENCE", 0)
    heard = []
    handle = ForkserverHandle(str(tmp_path), [], dict(os.environ), heard.append)
    handle.hang_up()
    await handle.gone()
    assert heard == []


async def test_hearing_may_hang_up_at_once(tmp_path):
    heard = []

    def hear(handle, message):
        heard.append(message[0])
        handle.hang_up()

    handle = ForkserverHandle(str(tmp_path), [], dict(os.environ), hear)
    await handle.gone()
    assert heard == [messages.LISTENING]


async def test_who_gives_up_waiting_for_its_end_keeps_nobody_else_from_it(tmp_path):
    async with forkserver(str(tmp_path)) as server:
        waiting = asyncio.create_task(server.handle.gone())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        server.handle.hang_up()
        await server.handle.gone()


def test_a_loop_that_was_closed_before_the_process_ended_is_no_error(tmp_path):
    async def start():
        return ForkserverHandle(str(tmp_path), [], dict(os.environ), print)

    handle = asyncio.run(start())
    handle._lifeline.close()
    handle._keeper.join()
    assert not tmp_path.exists()  # nobody said goodbye: the folder went too
