"""Pictures made on the spot, and the real server with real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from offloop.demo.server import Server
from offloop.demo.settings import Settings
from offloop.demo.web import build_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    Picture = Callable[..., bytes]
    Serving = Callable[..., contextlib.AbstractAsyncContextManager[httpx.AsyncClient]]


def make_picture(
    format: str = "JPEG",
    size: tuple[int, int] = (64, 48),
    mode: str = "RGB",
    **how: Any,
) -> bytes:
    """Return an image file: red grows to the right, green downwards, blue is noise."""
    width, height = size
    red, green = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    blue = np.random.default_rng(7).uniform(0, 255, (height, width))
    image = Image.fromarray(np.dstack([red, green, blue]).astype(np.uint8))
    out = io.BytesIO()
    image.convert(mode).save(out, format, **how)
    return out.getvalue()


@pytest.fixture(scope="session")
def picture() -> Picture:
    """Return what makes image files."""
    return make_picture


def start_server(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    """Start ``offloop demo`` on a free port, and return it with its address."""
    server = subprocess.Popen(
        [sys.executable, "-m", "offloop", "demo", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"running on (http://\S+|unix socket)", line):
            return server, found[1]
    raise AssertionError(f"the server ended with {server.wait()}")


def stop_server(
    server: subprocess.Popen[str], how: int = signal.SIGTERM
) -> tuple[int, str]:
    """End a server by a signal, and return its exit code and what it said."""
    server.send_signal(how)
    _, said = server.communicate()
    return server.returncode, said


@pytest.fixture(scope="session")
def shared_server() -> Iterator[tuple[int, str]]:
    """Run one server with one worker for all tests; its process id and address."""
    server, url = start_server("--workers", "1", "--queue", "8", "--no-controls")
    yield server.pid, url
    stop_server(server)


@pytest.fixture
def own_server() -> Iterator[tuple[Callable[..., str], Callable[..., tuple[int, str]]]]:
    """Return what starts a server, and what stops it by a signal."""
    servers: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> str:
        server, url = start_server(*arguments)
        servers.append(server)
        return url

    def stop(how: int) -> tuple[int, str]:
        return stop_server(servers.pop(), how)

    yield start, stop
    for server in servers:
        stop_server(server)


@pytest.fixture
def client(shared_server: tuple[int, str]) -> Iterator[httpx.Client]:
    """Return a client of the shared server."""
    with httpx.Client(base_url=shared_server[1], timeout=30) as client:
        yield client


class _Server(Server):
    """Says when it is up, and leaves signals to the test runner."""

    def __init__(
        self, config: uvicorn.Config, closing: asyncio.Event, **patience: Any
    ) -> None:
        super().__init__(config, closing, **patience)
        self.up = asyncio.Event()

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        self.up.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def serve(
    patience: Any = None, **limits: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Run a server of its own in the running loop, and yield a client of it."""
    patience = patience or {}
    closing = asyncio.Event()
    app = build_app(Settings(**{"workers": 1, **limits}), closing)
    config = uvicorn.Config(app, port=0, lifespan="on", ws="none", log_level="error")
    server = _Server(config, closing, **patience)
    running = asyncio.ensure_future(server.serve())
    try:
        await server.up.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=30
        ) as client:
            yield client
    finally:
        server.should_exit = True
        await running


@pytest.fixture
def serving() -> Serving:
    """Return what runs a server in the loop of the test."""
    return serve
