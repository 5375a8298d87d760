"""nginx and HAProxy in front of ``offloop serve``, with the files that it writes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import shutil
import signal
import socket
import subprocess

import pytest
from click.testing import CliRunner

import serving
import waiting
from offloop.cluster.operate import drain, resume, scale, status
from offloop.cluster.proxies import Front, haproxy
from offloop.cluster.proxy_command import proxy_config
from offloop.errors import UsageError

_PATH = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
NGINX = shutil.which("nginx", path=_PATH)
HAPROXY = shutil.which("haproxy", path=_PATH)

needs_nginx = pytest.mark.skipif(NGINX is None, reason="there is no nginx here")
needs_haproxy = pytest.mark.skipif(HAPROXY is None, reason="there is no HAProxy here")


class Proxy:
    """A proxy that listens on a path.

    Args:
        command: that runs it.
        path: it.
    """

    def __init__(self, command, path):
        self._process = subprocess.Popen(command)
        self._path = path
        waiting.poll(self._listens)

    def _listens(self):
        assert self._process.poll() is None, "the proxy has ended"
        with contextlib.suppress(OSError):
            self._connect().close()
            return True
        return False

    def _connect(self):
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(60)
        try:
            line.connect(self._path)
        except OSError:
            line.close()
            raise
        return line

    def get(self, path, method="GET"):
        """Return status and text of an answer."""
        with self._connect() as line:
            request = (
                f"{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
            )
            line.sendall(request.encode())
            answer = b"".join(iter(lambda: line.recv(65536), b"")).decode()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), body

    def close(self):
        self._process.terminate()
        self._process.wait(60)


@pytest.fixture
def through(tmp_path):
    """Return what starts a proxy with a configuration that listens at `front`."""
    running = []
    front = f"{tmp_path}/front"

    def start(kind, text):
        config = tmp_path / "config"
        if kind == "nginx":
            paths = " ".join(
                f"{name}_temp_path {tmp_path}/{name};"
                for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            who = "user root;" if os.geteuid() == 0 else ""
            config.write_text(
                f"{who} daemon off; pid {tmp_path}/pid; events {{}}\n"
                f"http {{ access_log off; {paths}\n{text}\n}}"
            )
            command = [NGINX, "-p", str(tmp_path), "-c", str(config), "-e", "stderr"]
            subprocess.run([*command, "-t"], check=True, capture_output=True)
        else:
            config.write_text(text)
            command = [HAPROXY, "-f", str(config)]
            subprocess.run([*command, "-c"], check=True, capture_output=True)
        running.append(Proxy(command, front))
        return running[-1]

    start.front = f"unix:{front}"
    yield start
    for one in running:
        one.close()


def run(command, *arguments, code=0):
    done = CliRunner().invoke(command, arguments)
    assert done.exit_code == code, done.output
    return done.output


def pids(name="default"):
    seen = json.loads(run(status, "--json", "--name", name))
    return [server["pid"] for server in seen["servers"] if server["state"] == "ready"]


ALL = Front(
    backends=("127.0.0.1:3000", "10.0.0.2:3000"),
    listen="127.0.0.1:8080",
    ready_path="/readyz",
    max_connections=10,
    client_connections=20,
    rewrites=(("/old", "/new"),),
    deny=("/metrics",),
    passes=(("/api2", "127.0.0.1:9000"),),
)


@needs_haproxy
def test_haproxy_takes_all_that_can_be_asked_for(tmp_path):
    for number, front in enumerate([ALL, Front(("unix:/run/app.sock",))]):
        config = tmp_path / f"{number}.cfg"
        config.write_text(haproxy(front))
        subprocess.run([HAPROXY, "-c", "-f", config], check=True, capture_output=True)
    with pytest.raises(UsageError, match="serves no files"):
        haproxy(Front(("a:1",), static=(("/static/", "/srv/"),)))


def test_what_would_break_a_file_is_refused():
    with pytest.raises(UsageError, match="cannot stand in"):
        Front(("a:1",), deny=("/x; } evil",))
    with pytest.raises(UsageError, match="no backend"):
        Front(())
    assert "is not /PATH=" in run(proxy_config, "nginx", "--rewrite", "x", code=2)


@pytest.mark.slow
@needs_nginx
def test_no_request_is_lost_when_a_server_behind_nginx_is_killed(
    through, own_runtime, tmp_path
):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "x").write_text("a file")
    folder.chmod(0o755)
    with serving.serving("--workers", "2", "--compute", "0") as one:
        one.until_said("is served at")
        with serving.serving(*_other("1")) as another:
            text = run(
                proxy_config,
                "nginx",
                *("--listen", through.front, "--client-connections", "50"),
                *("--static", f"/static/={folder}/", "--rewrite", "/old=/pid"),
                *("--deny", "/cores", "--pass", f"/offloaded=127.0.0.1:{another.port}"),
            )
            assert text.count(f"server 127.0.0.1:{one.port} max_fails=0;") == 2
            proxy = through("nginx", text)
            assert proxy.get("/static/x") == (200, "a file")
            assert proxy.get("/cores")[0] == 404
            assert int(proxy.get("/old")[1]) in pids()
            assert len(proxy.get("/offloaded")[1].split()) == 2
        for number in range(150):
            if number % 50 == 25:
                os.kill(pids()[0], signal.SIGKILL)
            answered, text = proxy.get("/pid")
            assert answered == 200, text


def _other(workers):
    return ("--workers", workers, "--compute", "1", "--name", "other")


@pytest.mark.slow
@needs_haproxy
def test_haproxy_goes_elsewhere_when_one_place_is_drained_or_gone(through, own_runtime):
    ready = ("--ready-path", "/readyz")
    with (
        serving.serving("--workers", "1", "--compute", "0", *ready) as one,
        serving.serving(*_other("1"), *ready) as two,
    ):
        places = ("--to", f"127.0.0.1:{one.port}", "--to", f"127.0.0.1:{two.port}")
        where = ("--listen", through.front.replace("unix:", "unix@"))
        proxy = through(
            "haproxy", run(proxy_config, "haproxy", *places, *where, *ready)
        )
        (first,), (second,) = pids(), pids("other")

        def until_only(wanted):
            def asked():
                return {int(proxy.get("/pid")[1]) for _ in range(6)}

            waiting.poll(lambda: asked() == set(wanted))

        until_only([first, second])
        run(drain)
        until_only([second])
        run(resume)
        until_only([first, second])
        two.send_signal(signal.SIGKILL)
        answers = [proxy.get("/pid") for _ in range(100)]
        assert {answered for answered, _ in answers} == {200}
        until_only([first])
    shutil.rmtree(f"{own_runtime}/offloop-{os.getuid()}")


def three_free_ports():
    """Return the first of three, none of which the kernel gives to connections."""
    while True:
        port = random.randrange(20_000, 30_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for number in range(3):
                where = ("127.0.0.1", port + number)
                stack.enter_context(socket.create_server(where))
            return port


def refuses(port):
    """Tell whether nobody listens at a port."""
    with socket.socket() as line:
        return line.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


@pytest.mark.slow
@needs_nginx
def test_each_server_has_a_port_and_a_blocked_one_is_left_alone(
    through, own_runtime, pipe
):
    port = three_free_ports()
    each = ("--port-each", f"127.0.0.1:{port}")
    with serving.serving("--workers", "3", "--compute", "0", *each) as one:
        one.until_said("is served at")
        text = run(proxy_config, "nginx", "--listen", through.front)
        for number in range(3):
            assert f"server 127.0.0.1:{port + number} max_fails=1" in text
        proxy = through("nginx", text)
        reached, until = pipe(), pipe()
        path = f"/block?gates={reached.path},{until.path}"
        line = proxy._connect()
        line.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\n\r\n".encode())
        reached.reached()
        others = {int(proxy.get("/pid")[1]) for _ in range(20)}
        assert len(others) == 2
        until.open()
        line.close()
        run(scale, "2")
        waiting.poll(lambda: refuses(port + 2))  # when the third has gone
        assert proxy.get("/pid")[0] == 200
