"""Keeps some jobs going ahead of a consumer: what `map` is made of.

    source ──▶ chunk ──▶ job ──▶ done ──▶ batch of results ──▶ the consumer
               as many items as run 10 ms together, or as told

It never takes more items than asked for, so endless iterables work, and it cancels what
it took when its consumer leaves early. An item that fails costs no other its result.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from functools import partial
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from offloop.core.policies import ChunkSize
from offloop.engines.base import Job
from offloop.errors import NotOffloadable
from offloop.wire.chunks import Mixed
from offloop.wire.failures import decode_error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

    from offloop.engines.base import Engine
    from offloop.options import JobOptions
    from offloop.sources import Source

T = TypeVar("T")

# Chunks are made for so many seconds before the loop gets its turn, and so many results
# given away.
_LOOP_TIME = 0.0005
_GIVEN = 1000


class Results(Generic[T]):
    """What `map` gives: results one by one, or all of them at once.

    Made by `Pool.map`, and by an offloaded function's ``map``. It begins when the first
    result is asked for. Leaving the loop, `aclose`, or cancelling what reads them
    cancels the jobs that were sent ahead.

    Example:
        async for result in pool.map(fn, items):
            ...
        everything = await pool.map(fn, items)
    """

    __slots__ = ("_each", "_plan", "_read")

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._each: AsyncGenerator[T] = _one_by_one(plan)
        #: somebody reads them in one way or the other
        self._read = False

    def __aiter__(self) -> AsyncGenerator[T]:
        # The generator itself: a loop then holds that alone, and leaving it closes it.
        self._read = True
        return self._each

    def __anext__(self) -> Coroutine[Any, Any, T]:
        self._read = True
        return self._each.__anext__()

    def __await__(self) -> Generator[Any, Any, list[T]]:
        if self._read:
            raise RuntimeError(
                "the results of a map can be read once: await it, or iterate over it; "
                "call map again for the results of another run"
            )
        self._read = True
        return _all_at_once(self._plan).__await__()

    async def aclose(self) -> None:
        """Want no more results, and cancel what was sent for them."""
        await self._each.aclose()

    def __repr__(self) -> str:
        return f"<Results of {getattr(self._plan.fn, '__qualname__', self._plan.fn)}>"


async def _all_at_once(plan: Plan) -> list[Any]:
    """Return all results; a batch at a time, which costs less than one by one."""
    results: list[Any] = []
    async with contextlib.aclosing(batches_ahead(plan)) as batches:
        async for batch in batches:
            results += batch
    return results


async def _one_by_one(plan: Plan) -> AsyncGenerator[Any]:
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
        self.carried = engine.capture() or ()
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
            read = perf_counter() - start
            self._size.made(len(items), read + await self._send(items))
            if perf_counter() - began > _LOOP_TIME:
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
            The seconds in which they were encoded: waiting for room is not that.
        """
        plan = self._plan
        if len(items) > 1:
            chunk = _Chunk(self._taken, len(items), False)
            chunked = (items, plan.source.spread, plan.return_exceptions)
            with contextlib.suppress(NotOffloadable):
                return await self._send_job(chunk, chunked)
        seconds = 0.0
        for item in items:
            chunk = _Chunk(self._taken, 1, True)
            args = item if plan.source.spread else (item,)
            try:
                seconds += await self._send_job(chunk, args)
            except NotOffloadable as error:
                chunk.error = error
                self._add(chunk, None)
                self._done.append(chunk)
        return seconds

    async def _send_job(self, chunk: _Chunk, args: tuple[Any, ...]) -> float:
        plan = self._plan
        job: Job[Any] = Job(plan.engine)
        many = not chunk.lone

        def start() -> float:
            began = perf_counter()
            plan.engine.start(
                plan.fn, args, {}, plan.options, job, many=many, carried=plan.carried
            )
            return perf_counter() - began

        seconds = await plan.engine.in_turn(start)
        self._add(chunk, job)
        return seconds

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
        return value.results, {
            place: kept if isinstance(kept, Exception) else decode_error(kept)
            for place, kept in sorted(value.failures.items())
        }


def _name_item(error: BaseException, index: int) -> None:
    """Tell of which item an error is, in its traceback and as an attribute."""
    if getattr(error, "item_index", None) is None:
        # Around a __setattr__ of its class, which may refuse (a frozen dataclass).
        note = f"in `map`, at the item with index {index}"
        notes = [*getattr(error, "__notes__", ()), note]
        BaseException.__setattr__(error, "__notes__", notes)
        BaseException.__setattr__(error, "item_index", index)
