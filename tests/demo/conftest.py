"""Pictures made on the spot, and the real server with real HTTP."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from PIL import Image

from demo_server import serve, sharing, start_server, stop_server

if TYPE_CHECKING:
    import contextlib
    import subprocess
    from collections.abc import Callable, Iterator

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


@pytest.fixture(scope="session")
def shared_server() -> Iterator[tuple[int, str]]:
    """Run one server with one worker for all tests; its process id and address."""
    server, url = start_server("--workers", "1", "--queue", "8", "--no-controls")
    with sharing(server.pid):
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


@pytest.fixture
def serving() -> Serving:
    """Return what runs a server in the loop of the test."""
    return serve
