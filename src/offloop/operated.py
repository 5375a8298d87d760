"""Lets its user see and change a running pool from outside: `offloop top` and others.

    pool begins ── a moment later ──▶ control.sock ──▶ look, dump, reload, scale, ...
    pool ends   ──────────────────▶ it is gone

The socket lies in the directory that a pool has for its workers' sockets anyway: this
user alone may enter it, and when the program is killed, the forkserver removes it. It
comes when the first jobs are on their way, so no start waits for it, and a pool that
lives for a moment has none. Nothing here is done unless somebody asks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from offloop.control import ControlSocket
from offloop.errors import UsageError
from offloop.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from offloop.engines.base import Engine
    from offloop.options import PoolOptions
    from offloop.telemetry.events import Listeners

    Drain: TypeAlias = Callable[[], Awaitable[None]]

_log = logging.getLogger("offloop")

#: name of the socket in its directory
NAME = "control.sock"

# Seconds until there is one, and for which answers are waited for at the end.
_DELAY = 0.25
_PATIENCE = 0.2

# Workers that one may ask for.
_MOST = 4096

_COMMANDS = ("status", "look", "dump", "reload", "scale", "drain", "kill")


class Operated:
    """One pool, as those see it who operate it.

    Args:
        engine: of the pool.
        options: of the pool.
        listeners: of the pool.
        drain, more: see `PoolOperations`.
    """

    def __init__(
        self,
        engine: Engine,
        options: PoolOptions,
        listeners: Listeners,
        drain: Drain | None,
        more: Callable[[], dict[str, Any]] | None = None,
    ) -> None:
        self._engine = engine
        self._options = options
        self._listeners = listeners
        self._drain = drain
        self._more = more
        self._socket: ControlSocket | None = None
        self._recent: Recent | None = None
        self._timer = engine.loop.call_later(_DELAY, self._open)

    def _open(self) -> None:
        """Begin to listen, if the engine has a place for that."""
        home = self._engine.home
        if not home:
            return
        path = os.path.join(home, NAME)
        self._recent = Recent(self._listeners, self._options.name)
        asked = PoolOperations(
            self._engine, self._options, self._recent, self._drain, self._more
        )
        self._socket = ControlSocket(path, asked.obey)
        try:
            self._socket.open()
        except OSError as error:  # it runs all the same
            _log.warning("nobody can watch this pool at %s: %s", path, error)

    def hang_up(self) -> None:
        """Hear nobody any more; takes no time, and the loop may be closed."""
        if not self._engine.loop.is_closed():
            self._timer.cancel()
            if self._recent is not None:
                self._recent.close()
        if self._socket is not None:
            self._socket.hang_up()

    async def close(self) -> None:
        """Hang up, after those have their answer who wait for one."""
        self.hang_up()
        if self._socket is not None:
            await self._socket.close(_PATIENCE)


class PoolOperations:
    """Does what is asked of one pool: a method for each command.

    Args:
        engine: of the pool.
        options: of the pool.
        recent: what has happened in it of late.
        drain: lets the pool take nothing new, and waits until it has done what it has;
            None: that is not for its operators to decide.
        more: what is to be told besides; None: nothing.
    """

    def __init__(
        self,
        engine: Engine,
        options: PoolOptions,
        recent: Recent,
        drain: Drain | None,
        more: Callable[[], dict[str, Any]] | None,
    ) -> None:
        self._engine = engine
        self._options = options
        self._recent = recent
        self._drain = drain
        self._more = more

    async def obey(self, command: str, details: dict[str, Any]) -> dict[str, Any]:
        """Do what a command says, and return what is to be told.

        Raises:
            UsageError: there is no such command.
            OffloopError: it could not be done.
            TypeError, ValueError: its details are wrong.
        """
        if command not in _COMMANDS:
            known = ", ".join(_COMMANDS)
            raise UsageError(f"{command!r} is no command; there are: {known}")
        answer: dict[str, Any] = await getattr(self, command)(**details)
        return answer

    async def status(self) -> dict[str, Any]:
        """Tell which pool it is, and how it is."""
        return {**self._about(), "totals": self._engine.stats().totals()}

    def _about(self) -> dict[str, Any]:
        return {
            "pool": self._options.name,
            "pid": os.getpid(),
            "program": " ".join(sys.orig_argv),
            "seconds": time.monotonic() - self._engine.made_at,
            "wanted": self._engine.wanted,
        }

    async def look(self, since: int = 0) -> dict[str, Any]:
        """Tell everything of this moment, and events after one that is known."""
        stats = self._engine.stats()
        told = {
            **self._about(),
            "at": time.time(),
            "workers": [one.as_dict() for one in self._engine.workers()],
            **self._recent.look(int(since)),
            **({} if self._more is None else self._more()),
        }
        # Percentiles of many functions take milliseconds, and the loop has none.
        return {**told, "stats": await asyncio.to_thread(stats.as_dict)}

    async def dump(self, worker: int | None = None) -> dict[str, Any]:
        """Tell what each worker is doing, or one of them, as tracebacks."""
        dumps = [
            {"worker": one.worker, "pid": one.pid, "text": str(one)}
            for one in await self._engine.dump()
            if worker is None or one.worker == worker
        ]
        if worker is not None and not dumps:
            raise ValueError(f"there is no worker {worker}")
        return {"workers": dumps}

    async def reload(self) -> dict[str, Any]:
        """Replace all workers by such with new code, if that is any good."""
        began = time.monotonic()
        await self._engine.reload(None)
        return {"seconds": time.monotonic() - began}

    async def scale(self, workers: int) -> dict[str, Any]:
        """Have so many workers, or at most so many if their number follows the work."""
        if isinstance(workers, bool) or not 1 <= int(workers) <= _MOST:
            raise ValueError(f"there can be 1 to {_MOST} workers, not {workers!r}")
        await self._engine.resize(int(workers))
        return {"workers": self._engine.wanted}

    async def drain(self) -> dict[str, Any]:
        """Take nothing new, and wait until all jobs have ended."""
        if self._drain is None:
            raise UsageError("this pool is its servers': use `offloop drain` or `stop`")
        await self._drain()
        return {}

    async def kill(self, worker: int) -> dict[str, Any]:
        """Kill a worker; another one takes its place, and its job ends as lost."""
        return {"pid": self._engine.kill_worker(int(worker))}
