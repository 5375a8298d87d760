"""A running ``offloop serve APP`` is reloaded, scaled and asked how it is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading

import pytest
from click.testing import CliRunner

import serving
import waiting
from offloop.cluster import operate
from offloop.cluster.locks import PidFile
from offloop.errors import StartError
from offloop.top.command import top

pytestmark = pytest.mark.slow

_APPLICATION = """
import os
from offloop import offload

VERSION = {version}

@offload
def worker():
    return VERSION

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        return
    status = 200
    text = f"{{VERSION}} {{os.getpid()}}"
    if scope["path"] == "/worker":
        text = str(await worker())
    if scope["path"] == "/probe":
        status = {probed}
    headers = [(b"content-length", str(len(text)).encode())]
    await send({{"type": "http.response.start", "status": status, "headers": headers}})
    await send({{"type": "http.response.body", "body": text.encode()}})
"""


@pytest.fixture
def write(tmp_path):
    """Return what writes a version of the application."""

    def write(version, *, probed=200, more=""):
        text = _APPLICATION.format(version=version, probed=probed) + more
        (tmp_path / "versioned.py").write_text(text)

    write(1)
    return write


@pytest.fixture(autouse=True)
def _no_door(monkeypatch):
    """Let no later test go where a command of this one has sent its process."""
    monkeypatch.setenv("OFFLOOP_COORDINATOR", "")
    monkeypatch.delenv("OFFLOOP_COORDINATOR")


@pytest.fixture
def running(own_runtime, tmp_path, write):
    """Return what serves that application."""

    @contextlib.contextmanager
    def running(*arguments):
        where = ("--app-dir", str(tmp_path), "--bind", "127.0.0.1:0")
        one = serving.Serving(
            "versioned:app", *where, *arguments, PYTHONDONTWRITEBYTECODE="1"
        )
        try:
            one.until_said("is served at")
            yield one
        finally:
            if one.process.poll() is None:
                one.send_signal(signal.SIGTERM)
            one.wait()

    return running


def run(command, *arguments, code=0):
    """Run a command as people do, and return what it prints."""
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == code, done.output
    return done.output


# Seconds between two requests: those who serve need the cores too.
_PACE = 0.005


class Visitors:
    """Clients that ask all the time, over old connections and new ones.

    Args:
        one: what serves.
    """

    def __init__(self, one):
        self._one = one
        self._port = one.port
        self._ended = threading.Event()
        self.answers = []
        self.failures = []
        self._threads = [
            threading.Thread(target=self._visit, args=(n,)) for n in (1, 0)
        ]

    def _visit(self, keep):
        line = self._one.connect()
        while not self._ended.is_set():
            reused = line.sock is not None
            try:
                line.request("GET", "/")
                answer = line.getresponse()
                self.answers.append(answer.read().decode().split()[0])
                assert answer.status == 200
            except Exception as error:
                # An idle connection may be closed at any time: who asks over it in that
                # very moment asks again over a new one (RFC 9112, 9.3.1).
                if not (reused and isinstance(error, ConnectionError)):
                    self.failures.append(repr(error))
                line.close()
            if not keep:
                line.close()
            self._ended.wait(_PACE)
        line.close()

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        for thread in self._threads:
            thread.join()


def test_new_code_is_taken_if_it_is_good_and_no_request_is_lost(running, write):
    options = ("--workers", "2", "--compute", "1", "--probe", "/probe")
    with running(*options) as one, Visitors(one) as visitors:
        assert one.get("/worker") == "1"
        write(2)
        assert "reloaded within" in run(operate.reload)
        assert {one.get("/").split()[0] for _ in range(6)} == {"2"}
        assert one.get("/worker") == "2"
        write(3, more="import no_such_module")
        said = run(operate.reload, code=1)
        assert "No module named 'no_such_module'" in said
        assert "the old version goes on" in said
        write(4, probed=500)
        assert "/probe was answered by:\nHTTP/1.1 500" in run(operate.reload, code=1)
        assert {one.get("/").split()[0] for _ in range(6)} == {"2"}
        assert run(operate.reload, "--probe", "/", "--json")
        assert {one.get("/").split()[0] for _ in range(6)} == {"4"}
        write(5)
        before = one.heard
        one.send_signal(signal.SIGHUP)
        one.until_said("reloaded within", since=before)
        assert {one.get("/").split()[0] for _ in range(6)} == {"5"}
        for servers in ("4", "1", "2"):
            assert run(operate.scale, servers) == f"{servers} servers\n"
    assert visitors.failures == []
    assert set(visitors.answers) == {"1", "2", "4", "5"}


def _status():
    return json.loads(run(operate.status, "--json"))


def _reasons(seen):
    return [end["reason"] for end in seen["ends"]]


def test_it_is_scaled_drained_asked_and_stopped(running, tmp_path):
    pidfile = tmp_path / "pid"
    options = ("--workers", "1", "--compute", "1", "--ready-path", "/readyz")
    with running(*options, "--pidfile", str(pidfile)) as one:
        assert pidfile.read_text() == f"{one.pid}\n"
        with pytest.raises(StartError, match=f"belongs to process {one.pid}, which"):
            PidFile(str(pidfile))
        assert run(operate.scale, "3") == "3 servers\n"
        seen = _status()
        assert (seen["state"], seen["wanted"], seen["pid"]) == ("serving", 3, one.pid)
        assert [server["slot"] for server in seen["servers"]] == [0, 1, 2]
        assert "server 2  pid" in run(operate.status)
        one.send_signal(signal.SIGTTIN)
        one.until_said("4 servers are wanted")
        one.send_signal(signal.SIGTTOU)
        one.until_said("3 servers are wanted")
        assert run(operate.scale, "2") == "2 servers\n"
        assert one.get("/readyz") == "ready\n"
        run(operate.drain)
        with contextlib.closing(one.connect()) as line:
            line.request("GET", "/readyz")
            answer = line.getresponse()
            assert (answer.status, answer.read()) == (503, b"drained\n")
        assert one.get("/").startswith("1 ")  # it still serves who comes
        assert _status()["state"] == "drained"
        run(operate.resume)
        assert one.get("/readyz") == "ready\n"
        dumped = run(operate.dump)
        assert "uvicorn/server.py" in dumped
        assert "worker 1 (pid" in dumped
        assert one.get("/worker").startswith("1")
        watched = _until_watched(one.pid)
        assert [server["slot"] for server in watched["serve"]["servers"]] == [0, 1]
        assert watched["pool"]["stats"]["completed"] == 1
        assert {client["pending"] for client in watched["pool"]["clients"]} == {0}
        picture = run(top, str(one.pid), "--once")
        assert "SERVERS 2 of 2" in picture
        assert "WORKERS 1 of 1" in picture
        (first, *_) = _status()["servers"]
        sent = run(operate.signal, "TERM", "--slot", "0")
        assert sent == f"sent to {first['pid']}\n"
        one.until_said(r"exited with code 0: it was sent SIGTERM")
        assert "it was sent SIGTERM" in run(operate.status)
        assert "no signal" in run(operate.signal, "NONE", code=2)
        assert "there is no server 9" in run(operate.signal, "9", "--slot", "9", code=1)
        again = serving.Serving("versioned:app", "--app-dir", str(tmp_path))
        assert again.wait() == 3
        assert "there is an `offloop serve APP` at" in again.said
        run(operate.stop)
        assert one.wait() == 0
    assert not pidfile.exists()


def _until_watched(pid):
    """Return what `offloop top` sees; the pool listens a moment after its start."""
    while True:
        seen = json.loads(run(top, str(pid), "--once", "--json"))
        if seen["pool"] is not None:
            return seen


def test_the_socket_takes_requests_that_are_none_calmly(running, own_runtime):
    with running("--workers", "1", "--compute", "0") as one:
        path = f"{own_runtime}/offloop-{os.getuid()}/default/serve.sock"
        assert os.stat(path).st_mode & 0o777 == 0o600
        for request in (b"nonsense\n", b'"text"\n', b'{"command": "dance"}\n'):
            assert not _ask(path, request)["ok"]
        assert "unexpected" in _ask(path, b'{"command": "stop", "a": 1}\n')["error"]
        assert (
            "1 to 128" in _ask(path, b'{"command": "scale", "servers": 0}\n')["error"]
        )
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(path)
            line.sendall(b"x" * 100_000)  # and no end
        assert "--ready-path" in run(operate.drain, code=1)
        assert one.get("/").startswith("1 ")


def _ask(path, request):
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        line.sendall(request)
        with line.makefile() as file:
            return json.loads(file.readline())


def test_where_nothing_runs_it_says_so(own_runtime):
    assert "no `offloop serve APP` is running" in run(operate.status, code=3)


def test_a_pid_file_that_is_stale_is_taken_over(tmp_path):
    path = tmp_path / "pid"
    path.write_text(f"{os.getppid()}\n")  # it lives, and is not its owner
    one = PidFile(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    one.close()
    assert not path.exists()
    with pytest.raises(StartError, match="no pid file can be written"):
        PidFile(str(tmp_path / "no" / "folder"))


def test_servers_that_have_been_used_enough_are_replaced_and_nothing_fails(running):
    options = ("--workers", "2", "--compute", "0", "--max-requests", "40")
    with running(*options) as one, Visitors(one) as visitors:

        def recycled():
            seen = _status()
            assert sum(server["state"] == "ready" for server in seen["servers"]) >= 2
            return _reasons(seen).count("recycled-jobs")

        waiting.poll(lambda: recycled() >= 4)
    assert visitors.failures == []


def test_a_server_that_is_too_large_is_replaced(running):
    with running("--workers", "1", "--compute", "0", "--max-rss", "1MiB"):
        waiting.poll(lambda: "recycled-memory" in _reasons(_status()))


def test_a_change_of_a_file_is_taken_and_a_mistake_is_told(running, write, tmp_path):
    with running("--workers", "1", "--compute", "0", "--watch") as one:
        (tmp_path / "notes.txt").write_text("no source")
        write(2)
        one.until_said("reloaded within")
        assert one.get("/").startswith("2 ")
        write(3, more="import no_such_module")
        one.until_said("the new version was not taken")
        assert one.get("/").startswith("2 ")
        (tmp_path / "versioned.py").unlink()
        one.until_said("ModuleNotFoundError: No module named 'versioned'|Error loading")
        assert one.get("/").startswith("2 ")
