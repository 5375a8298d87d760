"""A server's process: uvicorn with a gate of its own, until the primary sends it away.

    READY ──▶ EMPLOY: the gate opens ──▶ RETIRE: CLOSED, requests end ──▶ exit

When a server makes room for another one, connections are closed in order: answers say
that the connection ends with them, and one that is idle stays until its client has
used it once more or uvicorn's keep-alive timeout is over. Nobody's request meets a
connection that has just been closed. When all of them go, idle connections are closed
at once: there is nobody else to go to.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

import uvicorn

from offloop import messages
from offloop.cluster.gate import Gate
from offloop.cluster.loads import Field, Loads
from offloop.cluster.requests import Counted
from offloop.wire.status import StatusPage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offloop.cluster.child import ChildLine

# Seconds in which connections that were taken at the very end send their request.
_SETTLE = 0.05

# Seconds between two looks whether the last request has ended.
_PAUSE = 0.02

# uvicorn ticks ten times in a second; the memory is looked at every second.
_TICKS = 10

# Seconds that requests get to notice that they were cancelled at the deadline.
_LAST = 1.0


class Server(uvicorn.Server):
    """Serves what comes through its gate.

    Args:
        config: of uvicorn.
        line: to the primary.
        loads: of all servers.
        seat: of this one.
        listeners: that all servers share.
        settings: what the primary has said, see `Primary`.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        line: ChildLine,
        loads: Loads,
        seat: int,
        listeners: list[socket.socket],
        settings: dict[str, Any],
    ) -> None:
        super().__init__(config)
        self._line = line
        self._loads = loads
        self._seat = seat
        self._listeners = listeners
        self._alone = settings["alone"]
        self._graceful = settings["graceful_timeout"]
        config.load()
        app = Counted(
            config.loaded_app,
            loads,
            seat,
            self._request_begun,
            settings["ready_path"],
            settings["limit_concurrency"],
        )
        app.unready = settings["unready"]
        config.loaded_app = self._counted = app
        self._gate: Gate | None = None
        self._leave: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])  # it opens none: the gate does
        loop = asyncio.get_running_loop()
        self._gate = Gate(
            self._listeners,
            self._welcome,
            self._loads,
            self._seat,
            alone=self._alone,
        )
        loop.add_signal_handler(signal.SIGTERM, self._told_to_go)
        self._line.listen(self._hear)
        self._measure()
        self._line.say(messages.READY)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are `startup`'s

    async def on_tick(self, counter: int) -> bool:
        if counter % _TICKS == 0:
            self._measure()
        return await super().on_tick(counter)

    def _measure(self) -> None:
        connections = len(self.server_state.connections)
        self._loads.write(self._seat, Field.CONNECTIONS, connections)
        self._loads.write(self._seat, Field.MEMORY, _memory())

    async def _welcome(self, connection: socket.socket, private: bool) -> Any:
        """Make a connection of uvicorn's of a socket."""
        loop = asyncio.get_running_loop()
        config: Any = self.config

        def make() -> asyncio.Protocol:
            protocol: asyncio.Protocol = config.http_protocol_class(
                config=config,
                server_state=self.server_state,
                app_state=self.lifespan.state,
                _loop=loop,
            )
            return protocol

        ssl = None if private else config.ssl
        return await loop.connect_accepted_socket(make, connection, ssl=ssl)

    def _request_begun(self) -> None:
        if self._gate is not None:
            self._gate.request_begun()

    # What the primary says

    def _hear(self, kind: int, *details: Any) -> None:
        assert self._gate is not None
        if kind == messages.EMPLOY:
            self._gate.open()
        elif kind == messages.RETIRE:
            self._retire(*details)
        elif kind == messages.PROBE:
            connection = socket.socket(fileno=self._line.take_descriptor())
            connection.setblocking(False)
            self._gate.arrive(connection, private=True)
        elif kind == messages.UNREADY:
            (self._counted.unready,) = details

    def _told_to_go(self) -> None:
        """Go, as somebody has sent SIGTERM to this process alone."""
        self._line.say(messages.LEAVING, "it was sent SIGTERM")
        self._retire(self._graceful, False)

    def _retire(self, seconds: float, all_go: bool) -> None:
        if self._leave is None:
            self._leave = asyncio.ensure_future(self._go(seconds, all_go))

    async def _go(self, seconds: float, all_go: bool) -> None:
        """End what is under way, then let uvicorn end.

        Args:
            seconds: that it may take.
            all_go: there is no other server for those who come.
        """
        assert self._gate is not None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        self._counted.leaving = True
        self._gate.close(take_waiting=all_go)
        self._line.say(messages.CLOSED)
        if all_go:
            await asyncio.sleep(_SETTLE)
        else:
            # uvicorn tells nobody when a connection ends.
            while self._is_busy() and loop.time() < deadline:  # noqa: ASYNC110
                await asyncio.sleep(_PAUSE)
        left = max(deadline - loop.time(), _LAST)
        self.config.timeout_graceful_shutdown = left  # type: ignore[assignment]
        self.should_exit = True

    def _is_busy(self) -> bool:
        """Tell whether anybody may still want something of this server."""
        return bool(self.server_state.connections or self.server_state.tasks)


def _memory() -> int:
    """Return the bytes that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(line: ChildLine, settings: dict[str, Any], files: list[int]) -> None:
    """Run a server until it is sent away.

    Args:
        line: to the primary.
        settings: see `Primary`.
        files: descriptors of the page of loads, of a file for tracebacks, and of the
            listening sockets.
    """
    if settings["core"] is not None:
        os.sched_setaffinity(0, {settings["core"]})
    page, words, *rest = files
    loads = Loads(page)
    os.close(page)
    StatusPage.prepare_last_words(words)
    faulthandler.enable()  # a crash belongs to what it has written
    faulthandler.register(messages.DUMP_SIGNAL, file=words, all_threads=True)
    listeners = [socket.socket(fileno=descriptor) for descriptor in rest]
    config = uvicorn.Config(settings["app"], **settings["uvicorn"])
    server = Server(config, line, loads, settings["seat"], listeners, settings)
    server.run([])
