"""``offloop upgrade``: a new primary takes the place of the one that runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket

import psutil
import pytest

import cluster_storm
import serving
from offloop.cluster import control
from offloop.cluster.locks import PidFile
from offloop.errors import StartError

pytestmark = pytest.mark.slow

_APPLICATION = """
import os
import jobs
from offloop import offload

VERSION = {version}
meet = offload(jobs.meet)

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    if scope["path"] == "/meet":
        await meet(*scope["query_string"].decode().split(","))
    text = str(os.getpid())
    if scope["path"] == "/version":
        text = str(VERSION)
    headers = [(b"content-length", str(len(text)).encode())]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    await send({{"type": "http.response.body", "body": text.encode()}})
"""


class Running:
    """A running application, whichever primary it has.

    Args:
        folder: of the application.
        arguments: of `offloop serve`.
        environment: more variables of it.
    """

    def __init__(self, folder, *arguments, **environment):
        self._folder = folder
        self.write(1)
        where = ("--app-dir", str(folder), "--bind", "127.0.0.1:0")
        self.first = serving.Serving(
            *("upgraded:app", *where, *arguments),
            PYTHONDONTWRITEBYTECODE="1",
            **environment,
        )
        self.first.until_said("is served at")
        self.port = self.first.port

    def write(self, version, more=""):
        text = _APPLICATION.format(version=version) + more
        (self._folder / "upgraded.py").write_text(text)

    async def ask(self, command, **details):
        return await asyncio.to_thread(control.ask, "default", command, **details)

    async def until_said(self, pattern):
        await asyncio.to_thread(self.first.until_said, pattern)

    async def status(self):
        return await self.ask("status")

    async def get(self, path):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        end = "HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
        writer.write(f"GET {path} {end}".encode())
        answer = (await reader.read()).decode()
        writer.close()
        assert answer.startswith("HTTP/1.1 200"), answer
        return answer.rpartition("\n")[2]

    def stop(self):
        """End whoever runs, and wait until nothing writes here any more."""
        with contextlib.suppress(StartError):
            control.ask("default", "stop")
        self.first.wait()


@contextlib.contextmanager
def running(folder, *arguments, **environment):
    one = Running(folder, *arguments, **environment)
    try:
        yield one
    finally:
        one.stop()


async def test_a_new_primary_takes_over_and_no_request_is_lost(
    own_runtime, tmp_path, gate
):
    pidfile = tmp_path / "pid"
    options = ("--workers", "1", "--compute", "1", "--pidfile", str(pidfile))
    options += ("--timeout-keep-alive", "1")
    with running(tmp_path, *options) as one:
        ended = asyncio.Event()
        clients = cluster_storm.Clients(one.port, 50)
        asking = asyncio.ensure_future(clients.run(ended))
        # A request is in the middle of a job when the new primary comes.
        reached, until = gate(), gate()
        pending = asyncio.ensure_future(one.get(f"/meet?{reached},{until}"))
        await reached.reached()
        assert (await one.ask("scale", servers=2))["servers"] == 2
        old = await one.status()
        one.write(2)
        answer = await one.ask("upgrade")
        assert answer["ok"], answer
        new = await one.status()
        assert new["pid"] == answer["pid"] != one.first.pid
        assert pidfile.read_text() == f"{answer['pid']}\n"
        with pytest.raises(StartError, match=f"process {answer['pid']}, which lives"):
            PidFile(str(pidfile))
        assert (new["wanted"], new["urls"]) == (2, old["urls"])
        until.open()
        assert int(await pending) in {server["pid"] for server in old["servers"]}
        assert await asyncio.to_thread(one.first.process.wait, 60) == 0
        assert {await one.get("/version") for _ in range(6)} == {"2"}
        # One that cannot start leaves everything as it is.
        one.write(3, "import no_such_module")
        answer = await one.ask("upgrade")
        assert "No module named 'no_such_module'" in answer["error"]
        assert "the old one goes on" in answer["error"]
        assert (await one.status())["pid"] == new["pid"]
        assert await one.get("/version") == "2"
        one.write(4)
        os.kill(new["pid"], signal.SIGUSR2)
        await one.until_said(rf"process (?!{new['pid']} )\d+ has taken over")
        while await one.get("/version") != "4":
            pass  # the old one takes what has come to it already
        ended.set()
        await asking
    assert clients.failures == []
    assert clients.answered > 0
    assert not pidfile.exists()


async def test_the_service_manager_is_told_who_is_the_main_process_now(
    own_runtime, tmp_path
):
    path = str(tmp_path / "notify")
    unix = tmp_path / "app.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(60)
        options = ("--workers", "1", "--compute", "0", "--bind", f"unix:{unix}")
        with running(tmp_path, *options, NOTIFY_SOCKET=path) as one:
            assert manager.recv(4096) == b"READY=1"
            new = (await one.ask("upgrade"))["pid"]
            told = [manager.recv(4096).split(b"\n")[0] for _ in range(3)]
            assert told == [b"RELOADING=1", f"MAINPID={new}".encode(), b"READY=1"]
            await asyncio.to_thread(one.first.process.wait, 60)
            assert unix.exists()  # it is not the old one's any more
            with socket.socket(socket.AF_UNIX) as line:
                line.connect(str(unix))
                line.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                assert line.recv(12) == b"HTTP/1.1 200"
        assert manager.recv(4096) == b"STOPPING=1"
    assert not unix.exists()


async def test_what_a_new_primary_says_before_it_has_begun_is_the_reason(
    own_runtime, tmp_path, gate
):
    folder = tmp_path / "app"
    folder.mkdir()
    with running(folder, "--workers", "1", "--compute", "0") as one:
        home = f"{own_runtime}/offloop-{os.getuid()}/default"
        names = set(os.listdir(home))
        source = (folder / "upgraded.py").read_text()
        reached, never = gate(), gate()
        stuck = f"jobs.meet({str(reached)!r}, {str(never)!r})\n"
        (folder / "upgraded.py").write_text(source + stuck)
        asked = asyncio.ensure_future(one.ask("upgrade"))
        server = await reached.reached()
        second = await one.ask("reload")
        assert "under way" in second["error"]
        os.kill(psutil.Process(server).ppid(), signal.SIGKILL)
        assert "exited with code -9" in (await asked)["error"]
        (folder / "upgraded.py").unlink()
        folder.rename(tmp_path / "elsewhere")
        refused = (await one.ask("upgrade"))["error"]
        assert "does not exist" in refused
        assert set(os.listdir(home)) == names
        assert (await one.get("/version")) == "1"
        (tmp_path / "elsewhere").rename(folder)
