"""Lets connections in one at a time, and only into a server that can take them now.

    listening sockets, shared by all servers
        │ somebody comes
        ▼
    others have less to do? ──yes──▶ give them a moment, then look again
        │ no
        ▼
    accept one ──▶ hold the gate until its request has begun ──▶ open it again

asyncio accepts as many connections as wait, in one go. So a server that is about to be
blocked by one of them takes others along, which then wait for it while its neighbours
are idle. Here a blocked server has accepted just the connection that blocks it, and
those that come in a burst spread over all servers.

It decides who takes a connection, and never looks into one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from offloop.cluster.loads import Field

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence

    from offloop.cluster.loads import Loads

_log = logging.getLogger("offloop")

# Seconds that each server that has less to do gets to be the first, and all of them
# together: a process on a free core wakes up within a tenth of a millisecond.
_MOMENT = 0.0003
_LONGEST = 0.001

# Seconds that the gate is held for a connection that sends no request.
_PATIENCE = 0.02

# Turns of the loop for which a request that has begun holds the gate: middleware may
# need some before the work proper, which perhaps blocks, begins.
_TURNS = 4

# Seconds until it tries again when the process can have no more descriptors.
_NO_ROOM = 0.5


class Gate:
    """The way into one server.

    Args:
        listeners: to accept from, non-blocking; belong to this object from now on.
        welcome: makes a connection of a socket; the flag is that of `arrive`.
        loads: of all servers.
        seat: of this one.
        alone: nobody else accepts from these listeners.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        welcome: Callable[[socket.socket, bool], Awaitable[object]],
        loads: Loads,
        seat: int,
        *,
        alone: bool = False,
    ) -> None:
        self._alone = alone
        self._loop = asyncio.get_running_loop()
        self._listeners = list(listeners)
        self._welcome = welcome
        self._loads = loads
        self._seat = seat
        #: True while somebody who comes is noticed
        self._watching = False
        #: True while the latest connection keeps others out
        self._held = False
        #: True while it is held for a few more turns only
        self._turning = False
        #: lets others in again, or looks again; None while neither is to be done
        self._timer: asyncio.TimerHandle | None = None
        self._arrivals: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin to take connections, unless it was closed meanwhile."""
        if self._listeners:
            self._loads.sit_down(self._seat)
            self._watch()

    def close(self, *, take_waiting: bool = False) -> None:
        """Take no more connections.

        Args:
            take_waiting: but those that wait in the kernel, as nobody else will.
        """
        self._loads.write(self._seat, Field.OPEN, 0)
        self._unwatch()
        self._forget_timer()
        if self._held:
            self._let_go()
        for listener in self._listeners:
            if take_waiting:
                while (connection := _accept(listener)) is not None:
                    self.arrive(connection)
            listener.close()
        self._listeners.clear()

    def request_begun(self) -> None:
        """Note that a request runs: the next connection may come in a few turns."""
        if self._held and not self._turning:
            self._turning = True
            self._forget_timer()
            self._turn(_TURNS)

    # Watching

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            for listener in self._listeners:
                self._loop.add_reader(listener.fileno(), self._somebody, listener)

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            for listener in self._listeners:
                self._loop.remove_reader(listener.fileno())

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Accepting

    def _somebody(self, listener: socket.socket) -> None:
        if not self._watching:  # two listeners were ready in the same turn
            return
        ahead = 0 if self._alone else self._loads.ahead_of(self._seat)
        self._unwatch()
        if ahead:
            moment = min(ahead * _MOMENT, _LONGEST)
            self._timer = self._loop.call_later(moment, self._take, listener)
        else:
            self._take(listener)

    def _take(self, listener: socket.socket) -> None:
        self._timer = None
        try:
            connection = _accept(listener)
        except OSError as error:
            _log.error("no connection can be accepted: %s", error)
            self._timer = self._loop.call_later(_NO_ROOM, self._look_again)
            return
        if connection is None:
            self._watch()
            return
        self._held = True
        self._loads.add(self._seat, Field.WORK)
        self._loads.add(self._seat, Field.TAKEN)
        self._timer = self._loop.call_later(_PATIENCE, self._release)
        self.arrive(connection)

    def _look_again(self) -> None:
        self._timer = None
        self._watch()

    def arrive(self, connection: socket.socket, *, private: bool = False) -> None:
        """Let a connection in.

        Args:
            connection: belongs to this object from now on.
            private: it comes from the primary, and not through a listener.
        """
        arrival = self._loop.create_task(self._make(connection, private))
        self._arrivals.add(arrival)
        arrival.add_done_callback(self._arrivals.discard)

    async def _make(self, connection: socket.socket, private: bool) -> None:
        connection.setblocking(False)
        try:
            await self._welcome(connection, private)
        except (OSError, TimeoutError):  # it has gone again, or its TLS is none
            connection.close()

    # Holding

    def _turn(self, left: int) -> None:
        if left:
            self._loop.call_soon(self._turn, left - 1)
        else:
            self._turning = False
            self._release()

    def _release(self) -> None:
        self._forget_timer()
        if self._held:
            self._let_go()
            self._watch()

    def _let_go(self) -> None:
        self._held = False
        self._loads.add(self._seat, Field.WORK, -1)


def _accept(listener: socket.socket) -> socket.socket | None:
    """Return a connection that waits; None if another server has it.

    Raises:
        OSError: there is one that cannot be had.
    """
    try:
        connection, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    return connection
