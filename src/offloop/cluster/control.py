"""The socket by which people and programs operate a running `offloop serve`.

    offloop status ──{"command": "status"}──▶ serve.sock ──▶ primary
                   ◀──{"ok": true, ...}──────

It is a `ControlSocket` like that of any pool, at a place that goes by a name.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from offloop import runtime
from offloop.cluster.locks import lock
from offloop.cluster.operations import Operations
from offloop.control import ControlSocket, Line
from offloop.errors import StartError

if TYPE_CHECKING:
    from pathlib import Path

    from offloop.cluster.primary import Primary

_NAME = "serve.sock"


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
        self._socket: ControlSocket | None = None
        self._reloads: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin to listen."""
        self._socket = ControlSocket(self._path, self._operations.obey)
        self._socket.open()

    async def close(self) -> None:
        """Hear nobody any more; those who wait for an answer get one."""
        if self._socket is not None:
            await self._socket.close()
        for reload in self._reloads:
            reload.cancel()
        self._lock_path.unlink(missing_ok=True)
        os.close(self._lock)

    def hang_up(self) -> None:
        """Reload, as a signal asks for, and say how it went."""
        reload = asyncio.ensure_future(self.reload())
        self._reloads.add(reload)
        reload.add_done_callback(self._reloads.discard)

    async def reload(self) -> None:
        """Reload, and say how it went."""
        await self._operations.reload_and_say()


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
    try:
        line = Line(home / _NAME)
    except OSError as error:
        raise StartError(
            f"no `offloop serve APP` is running at {home}: {error.strerror}; start "
            "one, or give the --name of the one that runs"
        ) from None
    with line:
        try:
            return line.ask(command, **details)
        except ConnectionError:
            raise StartError(
                f"`offloop serve` at {home} ended before it had answered"
            ) from None
