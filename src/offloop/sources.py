"""Where the items of a `map` come from: read one by one, and never sooner than asked.

    ordinary iterables ──────────────▶ take
    asynchronous ones ──▶ a task ────▶ take     reads ahead as far as it may
    another thread ─────▶ receive ───▶ take     reads when results are asked for

Nothing here knows of jobs. An error of an iterable is kept until the items before it
are used up, and what is left of it is the caller's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable


class Source(Protocol):
    """Where items come from."""

    #: True if each item is a tuple of arguments, False if it is the only one
    spread: bool
    #: no further items will come, and none is left
    exhausted: bool
    #: what the iterable raised instead of ending
    error: Exception | None

    def open(self, wake: Callable[[], None], capacity: Callable[[], int]) -> None:
        """Begin; `wake` is called when there are items again.

        Args:
            wake: tells that items have come, or that no more will.
            capacity: how many items may be taken ahead now.
        """

    def take(self, count: int) -> list[Any]:
        """Return up to `count` items, those that are there."""

    async def close(self) -> None:
        """Let go of the iterables."""


class Iterables:
    """Items of ordinary iterables: there at once, or never."""

    error: Exception | None = None

    def __init__(self, iterables: tuple[Iterable[Any], ...]) -> None:
        self.spread = len(iterables) != 1
        self.exhausted = False
        self._items = zip(*iterables, strict=False) if self.spread else iter(*iterables)

    def open(self, wake: Callable[[], None], capacity: Callable[[], int]) -> None:
        """Do nothing: the items are there."""

    def take(self, count: int) -> list[Any]:
        taken: list[Any] = []
        try:
            taken.extend(islice(self._items, count))
        except Exception as error:
            self.error = error
        self.exhausted = len(taken) < count
        return taken

    async def close(self) -> None:
        """Do nothing: they are the caller's."""


class Rows(Iterables):
    """Items that were read already.

    Args:
        rows: the items.
        spread: each is a tuple of arguments.
    """

    def __init__(self, rows: Iterable[Any], spread: bool) -> None:
        super().__init__((rows,))
        self.spread = spread


class Mailbox:
    """Items that another thread reads, and hands over by calls of `receive`.

    Args:
        spread: each item is a tuple of arguments.
        rows: the first items.
    """

    exhausted = False
    error: Exception | None = None

    def __init__(self, spread: bool, rows: list[Any]) -> None:
        self.spread = spread
        self._rows = deque(rows)
        #: no more will be handed over
        self._ended = False
        self._wake: Callable[[], None] | None = None

    def open(self, wake: Callable[[], None], capacity: Callable[[], int]) -> None:
        self._wake = wake

    def receive(self, rows: list[Any], last: bool) -> None:
        """Take items that were handed over; in the loop's thread."""
        self._rows.extend(rows)
        self._ended = self._ended or last
        self.exhausted = self._ended and not self._rows
        if self._wake is not None:
            self._wake()

    def take(self, count: int) -> list[Any]:
        rows = self._rows
        taken = [rows.popleft() for _ in range(min(count, len(rows)))]
        self.exhausted = self._ended and not rows
        return taken

    async def close(self) -> None:
        """Do nothing: the reader notices by itself."""


class AsyncIterables:
    """Items of iterables of which some are asynchronous: read by a task of its own."""

    def __init__(
        self, iterables: tuple[Iterable[Any] | AsyncIterable[Any], ...]
    ) -> None:
        self.spread = len(iterables) != 1
        self.exhausted = False
        self.error: Exception | None = None
        self._iterables = iterables
        self._ended = False
        self._read: deque[Any] = deque()
        self._task: asyncio.Task[None] | None = None
        #: set when there is room for another item
        self._room = asyncio.Event()

    def open(self, wake: Callable[[], None], capacity: Callable[[], int]) -> None:
        self._wake, self._capacity = wake, capacity
        self._task = asyncio.get_running_loop().create_task(self._read_all())

    def take(self, count: int) -> list[Any]:
        read = self._read
        taken = [read.popleft() for _ in range(min(count, len(read)))]
        self.exhausted = self._ended and not read
        self._room.set()
        return taken

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _read_all(self) -> None:
        try:
            iterators = [_as_async(each) for each in self._iterables]
            while True:
                while len(self._read) >= self._capacity():
                    self._room.clear()
                    await self._room.wait()
                row = [await anext(each) for each in iterators]
                self._read.append(tuple(row) if self.spread else row[0])
                self._wake()
        except StopAsyncIteration:
            pass
        except Exception as error:
            self.error = error
        self._ended = True
        self.exhausted = not self._read
        self._wake()


def source_of(iterables: tuple[Any, ...]) -> Source:
    """Return the source for the iterables of a `map`.

    Raises:
        TypeError: one of them cannot be iterated.
    """
    if any(hasattr(each, "__aiter__") for each in iterables):
        for each in iterables:
            if not hasattr(each, "__aiter__"):
                iter(each)
        return AsyncIterables(iterables)
    return Iterables(iterables)


def _as_async(iterable: Any) -> Any:
    if hasattr(iterable, "__aiter__"):
        return aiter(iterable)
    return _each(iter(iterable))


async def _each(iterator: Any) -> AsyncGenerator[Any]:
    for item in iterator:
        yield item
