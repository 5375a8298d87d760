"""Fewer runs of the same work: calls that share one run, and calls that run together.

    single_flight   f(1) ──▶ run ──▶ result ─┬─▶ first caller
                    f(1) ──────┘             └─▶ second caller

    batch           f(1) ─┐
                    f(2) ─┼─▶ f([1, 2, 3]) ──▶ [a, b, c]: one for each caller
                    f(3) ─┘   when there are enough, or the first has waited enough

Each caller may be cancelled by itself; the run is stopped when the last one is gone.
The job sees the context variables of the first caller. All that is known here of pools
is a coroutine function that runs a call; it belongs to one loop.
"""

from __future__ import annotations

import asyncio
import pickle
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from offloop.errors import NotOffloadable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

    from offloop.options import Batch, JobOptions

    Run = Callable[..., Coroutine[Any, Any, Any]]


class Gathering:
    """The calls of one pool that share runs, or wait for company.

    Args:
        run: runs a call: function, arguments, keyword arguments, options.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        #: runs that callers share, by what they call
        self._flights: dict[Hashable, _Flight] = {}
        #: batches that are open, by function and options
        self._batches: dict[Hashable, _OpenBatch] = {}

    async def call(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions,
    ) -> Any:
        """Run a call as its options have it, and return its result.

        Raises:
            TypeError: a call of a batched function has not exactly one argument.
            Exception: what the run raises; with `batch`, what the function answered in
                the place of a result.
        """
        if options.batch is not None:
            return await self._join_batch(fn, args, kwargs, options, options.batch)
        key = fn, options, _identity(args, kwargs)
        flight = self._flights.get(key)
        if flight is None:
            run = self._run(fn, args, kwargs, options)
            flight = self._flights[key] = _Flight(run)
            flight.task.add_done_callback(lambda _: self._land(key, flight))
        return await flight.join(lambda: self._land(key, flight))

    def _land(self, key: Hashable, flight: _Flight) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]

    async def _join_batch(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions,
        batch: Batch,
    ) -> Any:
        if len(args) != 1 or kwargs:
            raise TypeError(
                f"{getattr(fn, '__qualname__', fn)} is called with a list of items, as "
                "it has `batch`: give it exactly one positional argument, an item"
            )
        key = fn, options
        waiting = self._batches.get(key)
        if waiting is None:
            waiting = self._batches[key] = _OpenBatch(
                lambda items: self._run(fn, (items,), {}, options)
            )
            loop = asyncio.get_running_loop()
            waiting.timer = loop.call_later(
                batch.max_wait, self._close_batch, key, waiting
            )
        place = waiting.add(args[0])
        if len(waiting.items) >= batch.max_size:
            self._close_batch(key, waiting)
        return await waiting.answer(place)

    def _close_batch(self, key: Hashable, batch: _OpenBatch) -> None:
        """Let a batch run; whoever comes now opens the next one."""
        del self._batches[key]
        batch.begin()


class _Flight:
    """One run for several callers."""

    def __init__(self, run: Coroutine[Any, Any, Any]) -> None:
        self.task = asyncio.ensure_future(run)
        self._waiting = 0

    async def join(self, left_by_all: Callable[[], None]) -> Any:
        """Wait for the result; the last one to give up stops the run."""
        self._waiting += 1
        try:
            return await asyncio.shield(self.task)
        finally:
            self._waiting -= 1
            if not self._waiting and not self.task.done():
                left_by_all()
                self.task.cancel()


class _OpenBatch:
    """Items that wait for company, and then for their results."""

    def __init__(self, run: Callable[[list[Any]], Coroutine[Any, Any, Any]]) -> None:
        self.items: list[Any] = []
        self.timer: asyncio.TimerHandle | None = None
        self._run = run
        #: of each item: its caller's future
        self._callers: list[asyncio.Future[Any]] = []
        self._task: asyncio.Task[None] | None = None
        #: of the caller that opened it
        self._context = copy_context()

    def add(self, item: Any) -> asyncio.Future[Any]:
        """Take an item; returns the future of its result."""
        place: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.items.append(item)
        self._callers.append(place)
        return place

    async def answer(self, place: asyncio.Future[Any]) -> Any:
        """Wait for a result; the last caller to give up stops the run."""
        try:
            return await place
        finally:
            if self._task is not None and all(one.done() for one in self._callers):
                self._task.cancel()

    def begin(self) -> None:
        """Run what was not given up meanwhile."""
        if self.timer is not None:
            self.timer.cancel()
        wanted = [
            (item, caller)
            for item, caller in zip(self.items, self._callers, strict=True)
            if not caller.done()
        ]
        if wanted:
            self.items, self._callers = map(list, zip(*wanted, strict=True))
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._work(), context=self._context)

    async def _work(self) -> None:
        try:
            results = _checked(await self._run(self.items), len(self.items))
        except asyncio.CancelledError:
            for caller in self._callers:
                caller.cancel()
            raise
        except Exception as error:
            results = [error] * len(self.items)
        for caller, result in zip(self._callers, results, strict=True):
            if caller.done():
                continue
            if isinstance(result, Exception):
                caller.set_exception(result)
            else:
                caller.set_result(result)


def _checked(results: Any, count: int) -> list[Any]:
    if not isinstance(results, list) or len(results) != count:
        raise TypeError(
            "a batched function answers a list with a result, or an exception, for each"
            f" of its items, which were {count}; not {repr(results)[:80]}"
        )
    return results


def alone(results: Any) -> Any:
    """Return the result of a batched function that was called with one item."""
    (result,) = _checked(results, 1)
    if isinstance(result, Exception):
        raise result
    return result


def _identity(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Hashable:
    """Return what is equal for equal arguments: they, or their pickle.

    Types count: 1, 1.0 and True are equal, and a function may tell them apart.
    """
    named = tuple(sorted(kwargs.items()))
    types = tuple(map(type, args)), tuple(type(value) for _, value in named)
    try:
        hash((args, named))
    except TypeError:
        try:
            return pickle.dumps((args, named), 5)
        except Exception as error:
            raise NotOffloadable(
                "with `single_flight`, arguments must be hashable or picklable, to tell"
                f" whether two calls are the same: {error}"
            ) from error
    return args, named, types
