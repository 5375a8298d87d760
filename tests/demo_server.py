"""The real image server, in a process of its own or in the loop of a test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn

import leaks
from offloop.demo.server import Server
from offloop.demo.settings import Settings
from offloop.demo.web import build_app

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


def start_server(
    *arguments: str, env: dict[str, str] | None = None
) -> tuple[subprocess.Popen[str], str]:
    """Start ``offloop demo`` on a free port, and return it with its address.

    Args:
        *arguments: of the command.
        env: variables that differ from ours.
    """
    server = subprocess.Popen(
        [sys.executable, "-m", "offloop", "demo", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
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


@contextlib.contextmanager
def sharing(pid: int) -> Iterator[None]:
    """Share a process, and those that it starts, among tests."""
    leaks.shared.add(pid)
    try:
        yield
    finally:
        leaks.shared.remove(pid)


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
