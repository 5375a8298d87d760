"""The process: how it starts, and how signals end it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from starlette.applications import Starlette

from offloop.demo import server
from offloop.demo.command import is_alive
from offloop.demo.server import Listen
from offloop.demo.settings import Settings


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly(own_server, how):
    start, stop = own_server
    url = start("--workers", "1")
    assert httpx.get(f"{url}/healthz").status_code == 200
    code, said = stop(how)
    assert code == 0
    assert "Traceback" not in said


@pytest.mark.slow
def test_an_image_that_is_being_made_is_finished_first(own_server, picture):
    start, stop = own_server
    url = start("--workers", "1")
    with ThreadPoolExecutor(1) as thread:
        image = picture("PNG", size=(800, 600))
        answer = thread.submit(httpx.post, f"{url}/encode?f=avif&q=90", content=image)
        # The first job of all asks the worker what it can do.
        while httpx.get(f"{url}/stats").json()["submitted"] < 2:
            pass
        code, _ = stop(signal.SIGTERM)
        assert (code, answer.result().status_code) == (0, 200)


@pytest.fixture
def handlers():
    """Put the signal handlers back that `serve` replaces."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_port_that_is_taken_is_said(handlers, monkeypatch, capfd):
    monkeypatch.setattr(server, "build_app", lambda *_: Starlette())
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit):
        server.serve(Settings(), Listen("127.0.0.1", taken.getsockname()[1]))
    assert "address already in use" in capfd.readouterr().err


def test_workers_that_cannot_start_are_said(handlers, monkeypatch, capfd):
    @contextlib.asynccontextmanager
    async def failing(app):
        raise OSError("no workers today")
        yield

    def build_app(settings, closing):
        return Starlette(lifespan=failing)

    monkeypatch.setattr(server, "build_app", build_app)
    with contextlib.suppress(SystemExit):  # what newer versions of uvicorn do
        assert not server.serve(Settings(), Listen("127.0.0.1", 0))
    assert "no workers today" in capfd.readouterr().err


def test_a_metrics_port_that_is_taken_is_said(capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = taken.getsockname()
        assert not server.serve(Settings(), Listen("127.0.0.1", 0, metrics=where))
    assert f"metrics on 127.0.0.1:{where[1]}" in capfd.readouterr().err


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.mark.slow
def test_health_and_metrics_have_a_port_of_their_own(own_server):
    start, stop = own_server
    port = free_port()
    start("--workers", "1", "--metrics-bind", f"127.0.0.1:{port}")
    aside = f"http://127.0.0.1:{port}"
    assert httpx.get(f"{aside}/healthz").text == "ok\n"
    assert httpx.get(f"{aside}/readyz").json() == {"ready": True}
    assert "offloop_workers" in httpx.get(f"{aside}/metrics").text
    assert httpx.get(f"{aside}/encode").status_code == 404
    code, said = stop(signal.SIGTERM)
    assert (code, "Traceback" in said) == (0, False)


@pytest.mark.slow
def test_it_can_listen_on_a_unix_socket(own_server, tmp_path):
    start, _ = own_server
    path = str(tmp_path / "demo.sock")
    start("--workers", "1", "--uds", path)
    with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
        assert client.get("http://demo/healthz").text == "ok\n"
        assert client.get("http://demo/stats").json()["controls"] is False
    assert is_alive("", 0, path)


@pytest.mark.slow
def test_those_who_listen_do_not_hold_up_the_end(own_server):
    start, stop = own_server
    url = start("--workers", "1")
    with httpx.stream("GET", f"{url}/events", timeout=30) as events:
        lines = events.iter_lines()
        assert next(lines).startswith("data: {")
        with ThreadPoolExecutor(1) as thread:
            end = thread.submit(stop, signal.SIGTERM)
            rest = list(lines)
            code, said = end.result()
    assert rest[-1] == ""
    assert (code, "exceeded" in said) == (0, False)


@pytest.mark.slow
def test_another_server_can_run_it(tmp_path, picture):
    path = str(tmp_path / "other.sock")
    command = [sys.executable, "-m", "uvicorn", "offloop.demo:app", "--uds", path]
    environment = {**os.environ, "OFFLOOP_WORKERS": "1"}
    server = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    try:
        for line in server.stderr:
            if b"running on" in line:
                break
        with httpx.Client(transport=httpx.HTTPTransport(uds=path)) as client:
            answer = client.post("http://demo/encode?f=webp", content=picture())
        assert answer.status_code == 200
    finally:
        server.terminate()
        server.communicate()


@pytest.mark.slow
def test_servers_that_share_a_pool_can_run_it(tmp_path, picture):
    path = str(tmp_path / "front.sock")
    serve = [sys.executable, "-m", "offloop", "serve", "offloop.demo:app"]
    options = ["--workers", "2", "--compute", "1", "--bind", f"unix:{path}"]
    with subprocess.Popen(
        [*serve, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as primary:
        try:
            for line in primary.stdout:
                if b"is served at" in line:
                    break
            transport = httpx.HTTPTransport(uds=path)
            with httpx.Client(transport=transport, base_url="http://demo") as client:
                assert client.get("/readyz").json() == {"ready": True}
                made = client.post("/encode?f=webp&w=20", content=picture())
                assert made.headers["content-type"] == "image/webp"
                known = {"If-None-Match": made.headers["etag"]}
                again = client.post(
                    "/encode?f=webp&w=20", content=picture(), headers=known
                )
                assert again.status_code == 304
                assert client.post("/encode", content=b"text").status_code == 415
                several = "/variants?widths=9,20&formats=webp,jpeg"
                assert client.post(several, content=picture()).status_code == 200
        finally:
            primary.terminate()
            said = primary.stdout.read()
    assert (primary.returncode, b"Traceback" in said) == (0, False), said


async def closed_by_server(client, sent):
    """Connect, send something, and wait until the server closes the connection."""
    reader, writer = await asyncio.open_connection(
        client.base_url.host, client.base_url.port
    )
    try:
        writer.write(sent)
        async with asyncio.timeout(30):
            return await reader.read()
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


PATIENCE = {"idle_timeout": 0.2, "read_timeout": 0.2, "ticks": 1}


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nX: "], ids=["none", "part"])
@pytest.mark.slow
async def test_a_connection_without_a_request_is_ended(serving, sent):
    async with serving(PATIENCE) as client:
        assert await closed_by_server(client, sent) == b""


@pytest.mark.slow
async def test_a_connection_that_goes_on_sending_after_its_answer_is_ended(serving):
    head = b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc"
    async with serving(PATIENCE) as client:
        answer = await closed_by_server(client, head)
    assert answer.startswith(b"HTTP/1.1 404")


@pytest.mark.slow
async def test_a_client_that_does_not_read_its_answer_is_ended(serving):
    async with serving(PATIENCE) as client:
        host, port = client.base_url.host, client.base_url.port
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, (host, port))
            ask = b"GET /sample/photo?f=tiff&timeout=9 HTTP/1.1\r\nHost: x\r\n\r\n"
            await loop.sock_sendall(deaf, ask)
            async with asyncio.timeout(30):
                while (await client.get("/stats")).json()["completed"] < 2:
                    pass
                while f"{port}" in str(connected_to(port, deaf.getsockname()[1])):
                    await client.get("/healthz")


def connected_to(port, other):
    """Return the server's end of a connection, as long as there is one."""
    return [
        one
        for one in psutil.Process().net_connections()
        if one.laddr
        and one.laddr.port == port
        and one.raddr
        and one.raddr.port == other
    ]


@pytest.mark.slow
async def test_more_connections_than_allowed_are_ended(serving):
    async with serving({"max_connections": 1}) as client:
        await client.get("/healthz")  # keeps its connection
        # The one that came last goes, and at once: an idle one would have ten seconds.
        async with asyncio.timeout(5):
            assert await closed_by_server(client, b"GET /") == b""
        assert (await client.get("/healthz")).text == "ok\n"
