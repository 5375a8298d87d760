"""Lets clients in: the socket that they come to, and what is asked of each.

    client ──▶ pool.sock ──▶ which user? which version? ──▶ WELCOME, or REFUSED

The socket lies in a directory that only its user can enter, and the kernel is asked
who comes all the same. A client is gone when its line ends or its process does,
whichever comes first: a forked child of it may hold the line open.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING

from offloop import messages, runtime
from offloop.cluster.clients import Client
from offloop.engines.uplink import VERSION
from offloop.wire.lifeline import Lifeline

if TYPE_CHECKING:
    from pathlib import Path

    from offloop.cluster.coordinator import Coordinator

_log = logging.getLogger("offloop")

# Connections that wait to be accepted.
_BACKLOG = 128


class Door:
    """The way to one coordinator.

    Args:
        path: of the socket, in a directory of this user alone; nobody else has it.
        coordinator: whose clients come.
        limit: jobs that one client may have pending; None: any number.
    """

    def __init__(self, path: Path, coordinator: Coordinator, limit: int | None) -> None:
        self._path = path
        self._coordinator = coordinator
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._last_number = 0
        #: descriptors of connected clients' processes, by client
        self._pidfds: dict[Client, int] = {}
        #: connections that have not said who they are
        self._strangers: dict[Lifeline, runtime.Peer] = {}
        coordinator.dismiss = self._went
        self._path.unlink(missing_ok=True)  # of a coordinator that was killed
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.setblocking(False)
        self._socket.bind(str(self._path))
        self._path.chmod(0o600)
        self._socket.listen(_BACKLOG)
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Let nobody in any more, and send away those who are there."""
        self._loop.remove_reader(self._socket.fileno())
        self._path.unlink(missing_ok=True)
        self._socket.close()
        for line in list(self._strangers):
            self._turn_away(line)
        for client in list(self._pidfds):
            self._went(client)

    def _accept(self) -> None:
        try:
            connection, _ = self._socket.accept()
        except OSError:  # it was gone again
            return
        connection.setblocking(False)
        peer = runtime.peer_of(connection)
        if peer.uid != os.getuid():
            _log.warning("user %d is refused at %s", peer.uid, self._path)
            connection.close()
            return
        line = Lifeline(connection)
        self._strangers[line] = peer
        self._loop.add_reader(line.fileno(), self._ask, line)

    def _ask(self, line: Lifeline) -> None:
        """Take the first word of a connection."""
        try:
            heard = line.receive()
        except (ValueError, EOFError, TypeError):
            heard = [(0,)]
        if not heard:
            if line.ended:
                self._turn_away(line)
            return
        kind, *details = heard[0]
        known = kind == messages.HELLO and len(details) == 3 and line.has_descriptor
        if not known or details[0] != VERSION:
            version = ".".join(map(str, VERSION[1:]))
            why = (
                "it runs another version of offloop, or of Python: its pool is of "
                f"Python {version}, and functions do not travel between versions"
            )
            line.send((messages.REFUSED, why))
            self._turn_away(line)
            return
        self._admit(line, *details[1:])

    def _turn_away(self, line: Lifeline) -> None:
        del self._strangers[line]
        self._loop.remove_reader(line.fileno())
        line.close()

    def _admit(self, line: Lifeline, pid: int, name: str) -> None:
        peer = self._strangers.pop(line)
        self._loop.remove_reader(line.fileno())
        self._last_number += 1
        memory = line.take_descriptor()
        client = Client(
            self._last_number,
            peer.pid or pid,
            name,
            line,
            memory,
            self._coordinator.wake,
        )
        self._pidfds[client] = self._watch(client, peer.pid)
        client.send((messages.WELCOME, self._limit, os.getpid()))
        self._coordinator.client_came(client)

    def _watch(self, client: Client, pid: int) -> int:
        """Watch the process of a client, if its number means something here."""
        with contextlib.suppress(OSError):
            if pid:
                descriptor = os.pidfd_open(pid)
                self._loop.add_reader(descriptor, self._went, client)
                return descriptor
        return -1

    def _went(self, client: Client) -> None:
        descriptor = self._pidfds.pop(client, None)
        if descriptor is None:  # it has gone already
            return
        if descriptor >= 0:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._coordinator.client_went(client)
