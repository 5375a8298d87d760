"""Callers that wait for room in a pool: first come, first served.

    async with turns:            stand in line, until it is one's turn
        await turns.room()       wait until a job may be queued
        ...                      queue it

Only the one whose turn it is may wait for room or for memory, so that a large call is
not passed over by small ones, again and again. It knows of jobs only whether there is
room for one, and belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Turns:
    """The line of one pool.

    Args:
        has_room: tells whether one more job would be accepted.
    """

    def __init__(self, has_room: Callable[[], bool]) -> None:
        self._has_room = has_room
        self._turn = asyncio.Lock()
        #: done when there is room; None while nobody waits for it
        self._waiter: asyncio.Future[None] | None = None
        #: callers in line, the one whose turn it is among them
        self.waiting = 0
        #: the one whose turn it is waits for memory, and has a right to all there is
        self.wants_memory = False

    @property
    def closed(self) -> bool:
        """True while whoever could wait must not pass those who do.

        Those who wait for memory are passed by calls that need none: they may be what
        it takes to give memory back.
        """
        return self.waiting > 0 and not self.wants_memory

    async def __aenter__(self) -> None:
        self.waiting += 1
        try:
            await self._turn.acquire()
        except BaseException:
            self.waiting -= 1
            raise

    async def __aexit__(self, *error: object) -> None:
        self.waiting -= 1
        self.wants_memory = False
        self._turn.release()

    async def room(self) -> None:
        """Wait until there is room; only for the one whose turn it is."""
        while not self._has_room():
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def jobs_ended(self) -> None:
        """Let the one whose turn it is go on, if there is room now."""
        waiter = self._waiter
        if waiter is not None and not waiter.done() and self._has_room():
            waiter.set_result(None)

    def fail(self, error: Exception) -> None:
        """Let the one whose turn it is fail with `error`."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)
