"""The socket by which people and programs operate a running `offloop serve`.

    offloop status ──{"command": "status"}──▶ serve.sock ──▶ primary
                   ◀──{"ok": true, ...}──────

A request and its answer are a line of JSON each. The socket lies in a directory that
only its user can enter, has mode 0600, and the kernel is asked who comes all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from typing import TYPE_CHECKING, Any

from offloop import runtime
from offloop.cluster.locks import lock
from offloop.cluster.operations import Operations
from offloop.errors import OffloopError, StartError

if TYPE_CHECKING:
    from pathlib import Path

    from offloop.cluster.primary import Primary

_log = logging.getLogger("offloop")

_NAME = "serve.sock"

# Bytes that a request may have.
_LONGEST = 65536


class Control:
    """Hears what people want of a primary.

    Args:
        primary: it.
        home: directory of this user alone.

    Raises:
        StartError: another primary has this home.
    """

    def __init__(self, primary: Primary, home: Path) -> None:
        self._path = home / _NAME
        self._lock_path = home / "serve.lock"
        self._operations = Operations(primary)
        self._lock = lock(
            self._lock_path,
            f"there is an `offloop serve APP` at {home} already: stop that one, or "
            "give this one another name (--name)",
        )
        self._server: asyncio.Server | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to listen."""
        self._path.unlink(missing_ok=True)  # of one that was killed
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._path))
        self._path.chmod(0o600)
        self._server = await asyncio.start_unix_server(
            self._come, sock=listener, limit=_LONGEST
        )

    async def close(self) -> None:
        """Hear nobody any more; those who wait for an answer get one."""
        self._path.unlink(missing_ok=True)
        if self._server is not None:
            self._server.close()
        if self._calls:
            await asyncio.wait(self._calls, timeout=1.0)
        for call in self._calls:
            call.cancel()
        self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)

    def hang_up(self) -> None:
        """Reload, as a signal asks for, and say how it went."""
        call = asyncio.ensure_future(self.reload())
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def reload(self) -> None:
        """Reload, and say how it went."""
        await self._operations.reload_and_say()

    async def _come(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        call = asyncio.current_task()
        assert call is not None
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            peer = runtime.peer_of(writer.get_extra_info("socket"))
            if peer.uid == os.getuid():
                answer = await self._answer(await reader.readline())
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
            else:
                _log.warning("user %d is refused at %s", peer.uid, self._path)
        except (ConnectionError, ValueError):
            pass  # it has gone, or its line is too long
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            command = request.pop("command")
        except (ValueError, AttributeError, KeyError, TypeError):
            return {"ok": False, "error": 'a request is {"command": NAME, ...}'}
        try:
            return {"ok": True, **await self._operations.obey(command, request)}
        except (OffloopError, TypeError, ValueError) as error:
            return {"ok": False, "error": str(error)}


def ask(name: str, command: str, **details: Any) -> dict[str, Any]:
    """Ask a running primary for something, and wait until it is done.

    Args:
        name: of the primary.
        command: see `Operations`.
        details: of the command.

    Returns:
        Its answer.

    Raises:
        StartError: there is none.
    """
    home = runtime.home_of(name)
    line = socket.socket(socket.AF_UNIX)
    with contextlib.closing(line):
        try:
            trouble = runtime.trouble_with(home)
            if trouble:
                raise StartError(trouble)
            line.connect(str(home / _NAME))
        except OSError as error:
            raise StartError(
                f"no `offloop serve APP` is running at {home}: {error.strerror}; start "
                "one, or give the --name of the one that runs"
            ) from None
        line.sendall(json.dumps({"command": command, **details}).encode() + b"\n")
        with line.makefile("rb") as file:
            answer = file.readline()
    if not answer:
        raise StartError(f"`offloop serve` at {home} ended before it had answered")
    found: dict[str, Any] = json.loads(answer)
    return found
