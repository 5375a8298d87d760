"""What a generator yields in a thread, on its way to its consumer in the loop.

    generator ──▶ parts ──notice──▶ take ──▶ the consumer
        ▲           │                           │
        └─ runs on, or waits inside of its yield ◀── more

It runs as far ahead as its allowance goes, then waits where it is: suspended in its
`yield`, a place where it can be closed without any harm. An asynchronous generator
waits in its own event loop, whose other tasks go on.

Parts are handed over as they are, never copied. It knows no job and decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from offloop.wire.flow import Allowance, check

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator


class ThreadFlow:
    """One stream, between its generator's thread and the loop.

    Args:
        name: of the function, for errors.
        ahead: parts that the generator may be ahead of its consumer.
        notice: has `take` called soon; may be called from any thread.
    """

    def __init__(self, name: str, ahead: int, notice: Callable[[], None]) -> None:
        self._name = name
        self._notice = notice
        # A plain lock, as an interrupt may come wherever Python code begins.
        self._lock = threading.Lock()
        self._allowance = Allowance(ahead)
        #: nobody wants further parts
        self._closing = False
        #: parts that were not taken, each in a tuple, and about how many bytes they are
        self._parts: list[tuple[Any]] = []
        self._size = 0
        #: rings when a generator that waits should look again
        self._bell: SimpleQueue[None] = SimpleQueue()
        #: of an asynchronous generator: its loop, what runs it, and what it waits for
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None

    # In the loop

    def take(self) -> tuple[list[Any], int]:
        """Return what has come since the last time, and about how many bytes it is."""
        with self._lock:
            parts, size = self._parts, self._size
            self._parts, self._size = [], 0
        return parts, size

    def more(self, parts: int, size: int) -> None:
        """Let the generator run on: the consumer has taken so much."""
        with self._lock:
            self._allowance.refill(parts, size)
        self._ring()

    def close_asked(self) -> None:
        """Let the generator end at its next yield."""
        with self._lock:
            self._closing = True
        self._ring()

    def _ring(self) -> None:
        self._bell.put(None)
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                loop.call_soon_threadsafe(self._look)

    # In the thread

    def run(self, made: Any) -> Any:
        """Give all parts away; returns the value that the generator returns.

        Raises:
            TypeError: what the function returned is no iterator.
            BaseException: what the generator raises.
        """
        if hasattr(made, "__anext__"):
            return asyncio.run(self._drive(made))
        check(made, self._name)
        return self._run(made)

    def _run(self, parts: Iterator[Any]) -> Any:
        try:
            while not self._closing:
                try:
                    value = next(parts)
                except StopIteration as end:
                    return end.value
                self._give(value)
                while self._must_wait():
                    self._bell.get()
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is what counts
                _close(parts)
            raise
        _close(parts)
        return None

    def _give(self, value: Any) -> None:
        size = size_of(value)
        with self._lock:
            self._allowance.spend(size)
            self._parts.append((value,))
            self._size += size
            first = len(self._parts) == 1
        if first:
            self._notice()

    def _must_wait(self) -> bool:
        with self._lock:
            return self._allowance.spent and not self._closing

    # Asynchronous generators

    async def _drive(self, parts: AsyncIterator[Any]) -> None:
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        try:
            await self._give_all(parts, self._loop)
        except asyncio.CancelledError:
            if not self._closing:
                raise
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is what counts
                await _close_async(parts)
            raise
        finally:
            self._loop = self._task = None
        await _close_async(parts)

    async def _give_all(
        self, parts: AsyncIterator[Any], loop: asyncio.AbstractEventLoop
    ) -> None:
        if self._closing:  # before there was a loop to tell
            return
        async for value in parts:
            self._give(value)
            while self._must_wait():
                self._room = loop.create_future()
                await self._room
                self._room = None
            if self._closing:
                return

    def _look(self) -> None:
        """End the generator's wait: for its consumer, or, closing, for anything."""
        room = self._room
        if room is not None:
            if not room.done() and not self._must_wait():
                room.set_result(None)
        elif self._closing and self._task is not None:
            task, self._task = self._task, None
            task.cancel()


def size_of(value: Any) -> int:
    """Return about how many bytes a value takes that is never encoded."""
    size = getattr(value, "nbytes", None)
    if type(size) is int:
        return size
    return len(value) if isinstance(value, str | bytes | bytearray) else 8


def _close(parts: Iterator[Any]) -> None:
    """End a generator where it rests; other iterators have nothing to end."""
    close = getattr(parts, "close", None)
    if close is not None:
        close()


async def _close_async(parts: AsyncIterator[Any]) -> None:
    close = getattr(parts, "aclose", None)
    if close is not None:
        await close()
