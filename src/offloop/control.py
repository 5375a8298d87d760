"""A socket at which people and programs ask something of a process that runs.

    offloop top, status, ... ──{"command": "look"}──▶ socket ──▶ obey
                             ◀──{"ok": true, ...}────

A request and its answer are a line of JSON each; one connection may carry several, one
after the other. The socket lies in a directory that only its user can enter, has mode
0600, and the kernel is asked who comes all the same. What can be asked is none of its
business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from offloop import runtime
from offloop.errors import OffloopError, StartError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

_log = logging.getLogger("offloop")

# Bytes that a request may have.
_LONGEST = 65536

# Connections that may wait to be accepted.
_BACKLOG = 16


class ControlSocket:
    """Hears what is asked, on the running loop, from `open` to `close`.

    Args:
        path: of the socket, in a directory of this user alone.
        obey: called with a command and its details; returns what is to be told.
    """

    def __init__(
        self,
        path: Path | str,
        obey: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]],
    ) -> None:
        self._path = str(path)
        self._obey = obey
        self._loop = asyncio.get_running_loop()
        #: None while nobody is heard
        self._listener: socket.socket | None = None
        #: how to know the path again
        self._inode = -1
        #: connections
        self._calls: set[asyncio.Task[None]] = set()
        #: those of them that wait for a request
        self._idle: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin to listen, in the place of whoever did before.

        Raises:
            OSError: that cannot be.
        """
        fresh = f"{self._path}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh)
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(fresh)
            os.chmod(fresh, 0o600)
            self._inode = os.stat(fresh).st_ino
            listener.listen(_BACKLOG)
            os.replace(fresh, self._path)
            listener.setblocking(False)
            self._loop.add_reader(listener.fileno(), self._accept, listener)
        except OSError:
            listener.close()
            raise
        self._listener = listener

    def hang_up(self) -> None:
        """Hear nobody any more, and leave nothing behind; takes no time."""
        listener, self._listener = self._listener, None
        if listener is not None:
            if not self.displaced:
                with contextlib.suppress(OSError):
                    os.unlink(self._path)
            if not self._loop.is_closed():
                self._loop.remove_reader(listener.fileno())
            listener.close()

    @property
    def displaced(self) -> bool:
        """True if it is not this one any more that its path leads to."""
        try:
            return os.stat(self._path).st_ino != self._inode
        except FileNotFoundError:
            return True

    async def close(self, patience: float = 1.0) -> None:
        """Hang up; those who wait for an answer get one, if it comes soon."""
        self.hang_up()
        for call in self._idle:
            call.cancel()
        calls = self._calls - {asyncio.current_task()}
        if calls:
            _, late = await asyncio.wait(calls, timeout=patience)
            for call in late:
                call.cancel()
            if late:
                await asyncio.wait(late)

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except OSError:  # whoever came has gone, or there are no more descriptors
            return
        peer = runtime.peer_of(connection)
        if peer.uid != os.getuid():
            _log.warning("user %d is refused at %s", peer.uid, self._path)
            connection.close()
            return
        connection.setblocking(False)
        call = self._loop.create_task(self._serve(connection))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _serve(self, connection: socket.socket) -> None:
        with connection:
            reader, writer = await asyncio.open_unix_connection(
                sock=connection, limit=_LONGEST
            )
            try:
                while self._listener is not None and (line := await self._next(reader)):
                    writer.write(await self._answer(line) + b"\n")
                    await writer.drain()
            except (ConnectionError, ValueError):
                pass  # it has gone, or its line is too long
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    async def _next(self, reader: asyncio.StreamReader) -> bytes:
        call = asyncio.current_task()
        assert call is not None
        self._idle.add(call)
        try:
            return await reader.readline()
        finally:
            self._idle.discard(call)

    async def _answer(self, line: bytes) -> bytes:
        import json  # nobody has come before

        try:
            request = json.loads(line)
            command = request.pop("command")
        except (ValueError, AttributeError, KeyError, TypeError):
            told = {"ok": False, "error": 'a request is {"command": NAME, ...}'}
            return json.dumps(told).encode()
        try:
            told = {"ok": True, **await self._obey(command, request)}
        except (OffloopError, TypeError, ValueError) as error:
            told = {"ok": False, "error": str(error)}
        return json.dumps(told).encode()


class Line:
    """A connection to a control socket, for programs without an event loop.

    Args:
        path: of the socket.
        timeout: seconds to wait for an answer; None: as long as it takes.

    Raises:
        OSError: nobody is there.
        StartError: its directory is not this user's alone.
    """

    def __init__(self, path: Path, timeout: float | None = None) -> None:
        trouble = runtime.trouble_with(path.parent)
        if trouble:
            raise StartError(trouble)
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.settimeout(timeout)
            self._socket.connect(str(path))
            self._file = self._socket.makefile("rb")
        except OSError:
            self._socket.close()
            raise
        #: process that is at the other end; 0 if its number means nothing here
        self.pid = runtime.peer_of(self._socket).pid

    def ask(self, command: str, **details: Any) -> dict[str, Any]:
        """Ask for something, and wait until it is done.

        Returns:
            The answer; its "ok" tells whether it was done.

        Raises:
            OSError: the other end has gone, or does not answer.
        """
        import json

        request = json.dumps({"command": command, **details})
        self._socket.sendall(request.encode() + b"\n")
        answer = self._file.readline()
        if not answer.endswith(b"\n"):
            raise ConnectionResetError(f"{self._path} was closed before it answered")
        found: dict[str, Any] = json.loads(answer)
        return found

    def close(self) -> None:
        """Leave."""
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
