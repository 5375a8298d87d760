"""The process: how it starts, and how signals end it."""

from __future__ import annotations

import contextlib
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from starlette.applications import Starlette

from offloop.demo import server
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
        while not httpx.get(f"{url}/stats").json()["submitted"]:
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
    monkeypatch.setattr(server, "build_app", lambda settings: Starlette())
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit):
        server.serve(Settings(), "127.0.0.1", taken.getsockname()[1])
    assert "address already in use" in capfd.readouterr().err


def test_workers_that_cannot_start_are_said(handlers, monkeypatch, capfd):
    @contextlib.asynccontextmanager
    async def failing(app):
        raise OSError("no workers today")
        yield

    def build_app(settings):
        return Starlette(lifespan=failing)

    monkeypatch.setattr(server, "build_app", build_app)
    with contextlib.suppress(SystemExit):  # what newer versions of uvicorn do
        assert not server.serve(Settings(), "127.0.0.1", 0)
    assert "no workers today" in capfd.readouterr().err
