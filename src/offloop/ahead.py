"""Keeps some jobs going ahead of a consumer: what `map` is made of.

    source ──▶ chunk ──▶ job ──▶ done ──▶ batch of results ──▶ the consumer
               as many items as run 10 ms together, or as told

It never takes more items than asked for, so endless iterables work, and it cancels what
it took when its consumer leaves early. An item that fails costs no other its result.
"""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from offloop.core.policies import ChunkSize
from offloop.engines.base import Job
from offloop.errors import NotOffloadable
from offloop.wire.carried import capture
from offloop.wire.chunks import Mixed
from offloop.wire.failures import decode_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable

    from offloop.engines.base import Engine
    from offloop.options import JobOptions

# Chunks are made for so many seconds before the loop gets its turn, and so many results
# given away.
_LOOP_TIME = 0.0005
_GIVEN = 1000


async def results_ahead(plan: Plan) -> AsyncGenerator[Any]:
    """Yield the result of each item; see `Pool.map`."""
    batches = batches_ahead(plan)
    try:
        async for batch in batches:
            for result in islice(batch, _GIVEN):
                yield result
            for begin in range(_GIVEN, len(batch), _GIVEN):
                await asyncio.sleep(0)
                for result in batch[begin : begin + _GIVEN]:
                    yield result
    finally:
        await batches.aclose()


async def batches_ahead(plan: Plan) -> AsyncGenerator[list[Any]]:
    """Yield the results of each job together, as soon as they are wanted.

    Raises:
        Exception: what the first failing item raised, after the results before it; what
            the source raised, after the results of all items that it gave.
    """
    flight = _Flight(plan)
    source = plan.source
    try:
        while True:
            await flight.fill()
            chunk = flight.next_done()
            if chunk is not None:
                batch, error = flight.land(chunk)
                if batch:
                    yield batch
                if error is not None:
                    raise error
            elif not flight.going and source.exhausted:
                if source.error is not None:
                    raise source.error
                return
            else:
                await flight.changed()
            # Results that wait already would otherwise be worked off in one turn.
            await asyncio.sleep(0)
    finally:
        flight.cancel()
        await source.close()


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


class Plan:
    """What a `map` is to do.

    Args:
        engine: where jobs run.
        fn: called with each item.
        source: the items.
        options: of each job.
        chunksize: items of a job; None: as many as run for a moment together.
        buffersize: items that are taken and not given to the consumer; None: any.
        ahead: jobs that are kept going.
        ordered: results in the order of the items, or else as jobs end.
        return_exceptions: give errors as results, and go on.
    """

    def __init__(
        self,
        engine: Engine,
        fn: Callable[..., Any],
        source: Source,
        options: JobOptions,
        *,
        chunksize: int | None,
        buffersize: int | None,
        ahead: int,
        ordered: bool,
        return_exceptions: bool,
    ) -> None:
        self.engine = engine
        self.fn = fn
        self.source = source
        self.options = options
        self.chunksize = chunksize
        self.buffersize = buffersize
        self.ahead = ahead
        self.ordered = ordered
        self.return_exceptions = return_exceptions
        #: what each job sees of the context in which `map` was called
        self.carried = capture() or ()
        # A retried chunk would run items again that have succeeded.
        if chunksize is None and options.retries:
            self.chunksize = 1


class _Chunk:
    """Items on their way."""

    __slots__ = ("count", "error", "first", "job", "lone")

    def __init__(self, first: int, count: int, lone: bool) -> None:
        #: place of the first item among all
        self.first = first
        self.count = count
        #: it is one item, sent as a plain call
        self.lone = lone
        self.job: Job[Any] | None = None
        #: why it could not be sent
        self.error: Exception | None = None


class _Flight:
    """The jobs of one `map` that are going."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._size = ChunkSize(plan.options.run_timeout or float("inf"))
        #: chunks that have not landed, in order
        self.going: dict[_Chunk, None] = {}
        #: those of them that are done, in the order in which they were
        self._done: deque[_Chunk] = deque()
        #: items taken
        self._taken = 0
        #: items of chunks that are going or whose results the consumer is at
        self._out = 0
        #: items of the batch that the consumer is at
        self._given = 0
        self._waiter: asyncio.Future[None] | None = None
        plan.source.open(self._wake, self._capacity)

    async def fill(self) -> None:
        """Send jobs until as many are going as should be."""
        plan = self._plan
        self._out -= self._given
        self._given = 0
        began = perf_counter()
        while len(self.going) < plan.ahead and not plan.source.exhausted:
            count = self._next_count()
            if count <= 0:
                return
            start = perf_counter()
            items = plan.source.take(count)
            if not items:
                return
            waited = await self._send(items)
            end = perf_counter()
            self._size.made(len(items), end - start - waited)
            if end - began > _LOOP_TIME:
                await asyncio.sleep(0)
                began = perf_counter()

    def next_done(self) -> _Chunk | None:
        """Return the next chunk whose results are due, None if there is none yet."""
        if not self._plan.ordered:
            return self._done.popleft() if self._done else None
        first = next(iter(self.going), None)
        if first is not None and (first.job is None or first.job.done()):
            return first
        return None

    def land(self, chunk: _Chunk) -> tuple[list[Any], BaseException | None]:
        """Return the results of a chunk that is done, and the error that ends all."""
        del self.going[chunk]
        self._given = chunk.count
        results, errors = self._outcome(chunk)
        chunk.job = None  # it holds the results too
        for place, error in errors.items():
            _name_item(error, chunk.first + place)
            if not self._plan.return_exceptions:
                return results[:place], error
            results[place] = error
        return results, None

    async def changed(self) -> None:
        """Wait until a job has ended, or items have come."""
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def cancel(self) -> None:
        """Stop what is going."""
        for chunk in self.going:
            if chunk.job is not None:
                chunk.job.cancel()

    def _next_count(self) -> int:
        plan = self._plan
        count = plan.chunksize or self._size.items
        if plan.buffersize is not None:
            room = plan.buffersize - self._out
            if plan.chunksize is None:  # several jobs for each worker, however few
                count = min(count, max(plan.buffersize // plan.ahead, 1))
            elif not self.going:
                room = max(room, 1)
            count = min(count, room)
        return count

    def _capacity(self) -> int:
        """Return how many items an asynchronous source may read ahead."""
        plan = self._plan
        if plan.buffersize is not None:
            return plan.buffersize - self._out
        return plan.ahead + 2 * (plan.chunksize or self._size.items)

    async def _send(self, items: list[Any]) -> float:
        """Send items as one job; if one of them cannot travel, each by itself.

        Returns:
            The seconds that were spent waiting for room.
        """
        waited = 0.0
        if len(items) > 1:
            try:
                return await self._send_chunk(items)
            except NotOffloadable:
                pass
        for item in items:
            waited += await self._send_lone(item)
        return waited

    async def _send_chunk(self, items: list[Any]) -> float:
        plan = self._plan
        args = (items, plan.source.spread, plan.return_exceptions)
        waited = await self._wait_room()
        job: Job[Any] = Job(plan.engine)
        await plan.engine.start_in_turn(
            plan.fn, args, {}, plan.options, job, many=True, carried=plan.carried
        )
        self._add(_Chunk(self._taken, len(items), False), job)
        return waited

    async def _send_lone(self, item: Any) -> float:
        plan = self._plan
        chunk = _Chunk(self._taken, 1, True)
        args = item if plan.source.spread else (item,)
        waited = await self._wait_room()
        job: Job[Any] = Job(plan.engine)
        try:
            await plan.engine.start_in_turn(
                plan.fn, args, {}, plan.options, job, carried=plan.carried
            )
        except NotOffloadable as error:
            chunk.error = error
            self._add(chunk, None)
            self._done.append(chunk)
        else:
            self._add(chunk, job)
        return waited

    async def _wait_room(self) -> float:
        """Wait for room; returns for how many seconds."""
        began = perf_counter()
        await self._plan.engine.wait_room()
        return perf_counter() - began

    def _add(self, chunk: _Chunk, job: Job[Any] | None) -> None:
        self._taken += chunk.count
        self._out += chunk.count
        self.going[chunk] = None
        if job is not None:
            chunk.job = job
            job.add_done_callback(partial(self._ended, chunk))

    def _ended(self, chunk: _Chunk, job: Job[Any]) -> None:
        if not self._plan.ordered:
            self._done.append(chunk)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _outcome(self, chunk: _Chunk) -> tuple[list[Any], dict[int, BaseException]]:
        """Return the results of a chunk, and the errors of items by their place."""
        job = chunk.job
        error = chunk.error if job is None else job.exception()
        if error is not None:
            # One object for all: it is one thing that has happened.
            return [None] * chunk.count, dict.fromkeys(range(chunk.count), error)
        assert job is not None  # else there is an error
        if job.timings.run:
            self._size.ran(chunk.count, job.timings.run)
        value = job.result()
        if chunk.lone:
            return [value], {}
        if not isinstance(value, Mixed):
            return value, {}
        failures = sorted(value.failures.items())
        return value.results, {
            place: decode_error(payload) for place, payload in failures
        }


def _name_item(error: BaseException, index: int) -> None:
    """Tell of which item an error is, in its traceback and as an attribute."""
    if getattr(error, "item_index", None) is None:
        error.add_note(f"in `map`, at the item with index {index}")
        error.item_index = index  # type: ignore[attr-defined]  # ours, see Pool.map
