"""Run the application on uvicorn until a signal ends it, and guard its connections.

A client can keep a connection for ever without ever finishing a request, or without
reading its answer. uvicorn has no limit for either, so once in a second every
connection is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from math import ceil
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import uvicorn

from offloop.demo.web import build_app, build_watching_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offloop.demo.service import Service
    from offloop.demo.settings import Settings

__all__ = ["Listen", "Server", "serve"]

_log = logging.getLogger("offloop.demo")

# A client may take so much longer than its image to read the answer.
_SLACK = 2.0

# What both servers have in common. There is no access log, because the page asks for
# figures all the time.
_ALIKE: dict[str, Any] = {"access_log": False, "server_header": False, "ws": "none"}

# uvicorn ticks ten times in a second. Looking at a thousand connections takes more than
# a moment, so not each time, unless there are too many of them.
_TICKS = 10


class Server(uvicorn.Server):
    """Ends connections that make no progress, and endless answers when it ends.

    Args:
        config: of uvicorn.
        closing: set when the end begins.
        aside: listening socket of the second server for health and figures, or None.
        max_connections: of those that are more, the youngest are closed at once.
        idle_timeout: seconds without a request in the making; the time in which a
            client must have sent the head of one.
        read_timeout: seconds in which a client must have read an answer.
        ticks: tenths of a second between two looks at all connections.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        closing: asyncio.Event,
        aside: socket.socket | None = None,
        *,
        max_connections: int = 1000,
        idle_timeout: float = 10.0,
        read_timeout: float = 60.0,
        ticks: int = _TICKS,
    ) -> None:
        super().__init__(config)
        # uvicorn types it as the set that it was.
        self.server_state.connections = _InOrder()  # type: ignore[assignment]
        self._closing = closing
        self._max_connections = max_connections
        self._idle_timeout = idle_timeout
        self._read_timeout = read_timeout
        self._ticks = ticks
        self._aside = aside
        self._second: _Second | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._serving: asyncio.Task[None] | None = None
        #: what each connection does, and since when
        self._states: dict[Any, tuple[object, float]] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        service = self.lifespan.state.get("service")
        if service is not None:
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGHUP, self._reload, service)
        if self._aside is not None:
            app = build_watching_app(service)
            self._second = _Second(uvicorn.Config(app, lifespan="off", **_ALIKE))
            serving = self._second.serve([self._aside])
            self._serving = asyncio.ensure_future(serving)

    def _reload(self, service: Service) -> None:
        """Replace all workers, unless that is under way."""
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.ensure_future(service.reload())
            self._reloading.add_done_callback(_say_failure)

    async def on_tick(self, counter: int) -> bool:
        crowd = len(self.server_state.connections) > self._max_connections
        if crowd or counter % self._ticks == 0:
            self._sweep(monotonic())
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._closing.set()
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        if self._reloading is not None:
            self._reloading.cancel()
        await super().shutdown(sockets)
        if self._second is not None and self._serving is not None:
            self._second.should_exit = True
            await self._serving

    def _sweep(self, now: float) -> None:
        """End the connections that have made no progress for too long."""
        connections = list(self.server_state.connections)
        before, self._states = self._states, {}
        for number, connection in enumerate(connections):
            state = _state(connection)
            known, since = before.get(connection, (None, now))
            if known != state:
                since = now
            self._states[connection] = (state, since)
            if now - since > self._patience(state) or number >= self._max_connections:
                connection.transport.abort()

    def _patience(self, state: tuple[str, int]) -> float:
        limits = {"idle": self._idle_timeout, "answering": self._read_timeout}
        return limits.get(state[0], float("inf"))


def _say_failure(reloading: asyncio.Task[None]) -> None:
    if not reloading.cancelled() and (error := reloading.exception()) is not None:
        _log.error("The workers stay as they are: %s", error)


class _InOrder(dict[Any, None]):
    """A set that remembers who came first, with the methods that uvicorn uses."""

    def add(self, connection: Any) -> None:
        self[connection] = None

    def discard(self, connection: Any) -> None:
        self.pop(connection, None)


def _state(connection: Any) -> tuple[str, int]:
    """Return what a connection does, and for which of its requests."""
    cycle = getattr(connection, "cycle", None)
    request = id(cycle)
    if cycle is None or cycle.response_complete:
        return ("idle", request)
    if not cycle.response_started:
        return ("working", request)  # the application has limits of its own for this
    if cycle.scope["path"].endswith("/events"):
        return ("listening", request)
    return ("answering", request)


class _Second(uvicorn.Server):
    """Serves beside another server, which hears the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listen(NamedTuple):
    """Where to listen.

    Attributes:
        host: address.
        port: 0: any that is free.
        uds: path of a Unix socket to listen on instead, or None.
        metrics: host and port of a second server that has nothing but health and
            figures, or None.
    """

    host: str
    port: int
    uds: str | None = None
    metrics: tuple[str, int] | None = None


def serve(settings: Settings, listen: Listen) -> bool:
    """Serve until SIGINT or SIGTERM; answers that are under way are finished first.

    Args:
        settings: the limits.
        listen: where.

    Returns:
        False when it could not start; why, is on stderr.

    Raises:
        SystemExit: likewise; it depends on the version of uvicorn.
    """
    closing = asyncio.Event()
    config = uvicorn.Config(
        build_app(settings, closing),
        host=listen.host,
        port=listen.port,
        uds=listen.uds,
        lifespan="on",
        timeout_graceful_shutdown=ceil(settings.timeout + _SLACK),
        **_ALIKE,
    )
    aside = None
    if listen.metrics is not None:
        try:
            aside = socket.create_server(listen.metrics)
        except OSError as error:
            where = ":".join(map(str, listen.metrics))
            print(f"Cannot listen for metrics on {where}: {error}", file=sys.stderr)
            return False
    server = Server(config, closing, aside)
    # When it has ended, uvicorn raises the signal again, which would end this process
    # as if it had not been handled.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: None)
    server.run()
    return server.started
