"""The socket by which people and programs operate a running `offloop serve`.

    offloop status ──{"command": "status"}──▶ serve.sock ──▶ primary
                   ◀──{"ok": true, ...}──────

It is a `ControlSocket` like that of any pool, at a place that goes by a name.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from offloop import runtime
from offloop.control import ControlSocket, Line
from offloop.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from pathlib import Path

_NAME = "serve.sock"


class Control:
    """Hears what people want of a primary.

    Args:
        obey: called with a command and its details; returns what is to be told.
        home: directory of this user alone, which this process has claimed.
    """

    def __init__(
        self,
        obey: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]],
        home: Path,
    ) -> None:
        self._path = home / _NAME
        self._obey = obey
        self._socket: ControlSocket | None = None
        #: what signals have asked for
        self._actions: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        """Begin to listen, in the place of whoever did before."""
        old, self._socket = self._socket, ControlSocket(self._path, self._obey)
        self._socket.open()
        if old is not None:
            old.hang_up()

    @property
    def displaced(self) -> bool:
        """True if another process listens at its path by now."""
        return self._socket is None or self._socket.displaced

    async def close(self) -> None:
        """Hear nobody any more; those who wait for an answer get one."""
        if self._socket is not None:
            await self._socket.close()
        for action in self._actions:
            action.cancel()

    def act(self, action: Coroutine[Any, Any, None]) -> None:
        """Begin what a signal asks for."""
        task = asyncio.ensure_future(action)
        self._actions.add(task)
        task.add_done_callback(self._actions.discard)


def connect(name: str) -> Line:
    """Return a line to a running primary.

    Raises:
        StartError: there is none.
    """
    home = runtime.home_of(name)
    try:
        return Line(home / _NAME)
    except OSError as error:
        raise StartError(
            f"no `offloop serve APP` is running at {home}: {error.strerror}; start "
            "one, or give the --name of the one that runs"
        ) from None


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
    with connect(name) as line:
        try:
            return line.ask(command, **details)
        except ConnectionError:
            raise StartError(
                f"`offloop serve` of {name!r} ended before it had answered"
            ) from None
