"""Looks from outside whether workers hold more memory than they may.

A job's own allocations fail at the limit; this is for what it starts, and for systems
that do not enforce limits. It looks at one process at a time, and decides nothing else.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from offloop import machine
from offloop.core.exits import ExitReason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from offloop.handles import WorkerHandle

# Seconds between two looks at the memory of one worker.
_INTERVAL = 0.1


class MemoryWatch:
    """Kills workers that hold too much, their children included.

    Args:
        limit: bytes that each may hold; None: it watches nothing.
        workers: all that there are, by number.
        kill: ends one: which, why in words, and as a reason.
    """

    def __init__(
        self,
        limit: int | None,
        workers: Mapping[int, WorkerHandle],
        kill: Callable[[WorkerHandle, str, ExitReason], None],
    ) -> None:
        self._limit = limit
        self._workers = workers
        self._kill = kill
        self._loop = asyncio.get_running_loop()
        #: the next look; None while it does not watch
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to watch, if there is a limit."""
        if self._limit is not None:
            self._look(self._limit, 0)

    def close(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self, limit: int, last: int) -> None:
        """Look at the worker after the one with the number `last`."""
        numbers = [n for n, one in self._workers.items() if one.pid is not None]
        later = [number for number in numbers if number > last]
        number = min(later or numbers, default=0)
        worker = self._workers.get(number)
        if worker is not None and worker.pid is not None:
            held = machine.memory_of_tree(worker.pid)
            if held > limit and worker.reason is None:
                why = (
                    f"its process and the children of that held {held / 2**20:,.0f} "
                    f"MiB, and memory_limit is {limit / 2**20:,.0f} MiB"
                )
                self._kill(worker, why, ExitReason.OUT_OF_MEMORY)
        delay = _INTERVAL / max(len(numbers), 1)
        self._timer = self._loop.call_later(delay, self._look, limit, number)
