"""What can be asked of a pool: submit, run, map, and the same with other options.

Each call is handed to the pool's engine with the options of this view. It owns nothing:
whether the pool is open, and whose it is, the pool says.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    Unpack,
    overload,
)

from offloop.ahead import Plan, Results
from offloop.engines.base import Job, Stream
from offloop.errors import PoolFull, UsageError
from offloop.options import whole
from offloop.sources import source_of

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterable,
        AsyncIterator,
        Awaitable,
        Callable,
        Iterable,
        Iterator,
        Mapping,
    )

    from offloop.engines.base import Engine
    from offloop.gathering import Gathering
    from offloop.options import JobOptions, JobWords

P = ParamSpec("P")
T = TypeVar("T")


class _Home(Protocol):
    """The pool, as its views need it."""

    def _engine_now(self) -> Engine:
        """Return the engine if the pool can be used here and now."""
        ...

    def _gathered(self) -> Gathering:
        """Return what calls that share runs go through."""
        ...

    def _jobs_ahead(self) -> int:
        """Return how many jobs `map` keeps going."""
        ...


class PoolView:
    """A pool seen with other job options; made by `options`, light, immutable."""

    _job_options: JobOptions

    def __init__(self, pool: _Home, options: JobOptions) -> None:
        self._pool = pool
        self._job_options = options

    def options(self, **changes: Unpack[JobWords]) -> PoolView:
        """Return a view of the pool with other job options; the pool stays as it is.

        Args:
            timeout: seconds from submission to result; None: no limit.
            run_timeout: seconds from the start of the run; None: no limit.
            priority: higher runs first.
            key: whose job it is; keys get equal shares of the workers' time.
            max_concurrency: jobs of the same function that may be with workers at once.
            retries: further attempts after a lost worker, or an error in `retry_on`.
            retry_on: exceptions of the function that are worth a further attempt.
            on_full: "wait" or "raise", when the pool is full; `submit` always raises.
            on_cancel: what cancelling does to a running job: "stop", "kill" or
                "finish".
            single_flight: equal calls of `run` that are going share one run.
            batch: calls of `run` are gathered into lists; a `Batch`.
            buffersize: parts that a stream's generator may be ahead of its consumer.

        Raises:
            TypeError: for a word that is not an option.
            ValueError: for a value out of range.
        """
        return self._with(changes)

    def _with(self, changes: Mapping[str, Any]) -> PoolView:
        return PoolView(self._pool, self._job_options.changed(changes))

    @overload
    def submit(
        self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...
    @overload
    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]: ...
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Queue a call at once.

        Args:
            fn: what to call in a worker: any callable, `async def` functions included.
            *args: its positional arguments. Small ones are encoded before this returns
                and may be changed afterwards; buffers of more than 512 KB in all and
                large containers only when the job has ended.
            **kwargs: its keyword arguments.

        Returns:
            The job, an `asyncio.Future` of the result.

        Raises:
            NotOffloadable: the function or an argument cannot be sent.
            PoolFull: too many jobs, or bytes of jobs, have not ended; use `run` to wait
                for room.
            PoolClosed: the pool is not open.
            WrongLoop: the pool belongs to another event loop, thread or process.
        """
        options = self._job_options
        if options.batch is not None:
            raise _not_gathered("submit")
        engine = self._pool._engine_now()
        job: Job[Any] = Job(engine)
        try:
            engine.start(fn, args, kwargs, options, job)
        except PoolFull as full:
            engine.tell_refused(fn, full)
            raise
        return job

    @overload
    async def run(
        self, fn: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    @overload
    async def run(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T: ...
    async def run(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Wait for room, queue a call, and wait for its result.

        Args:
            fn: what to call in a worker.
            *args: its positional arguments.
            **kwargs: its keyword arguments.

        Returns:
            What the function returned.

        Raises:
            NotOffloadable: the function or an argument cannot be sent.
            PoolClosed: the pool is not open.
            JobTimeout: `timeout` or `run_timeout` has passed.
            WorkerLost: the process that ran the job ended.
            Exception: whatever the function raised.
        """
        engine = self._pool._engine_now()
        options = self._job_options
        if options.single_flight or options.batch is not None:
            return await self._pool._gathered().call(fn, args, kwargs, options)
        # Nobody sees this future, so it need not be a Job; asyncio's own is faster.
        future = engine.loop.create_future()
        job = engine.start_at_once(fn, args, kwargs, options, future)
        if job is None:
            start = partial(engine.start, fn, args, kwargs, options, future)
            job = await engine.in_turn(start)
        try:
            return await future
        except asyncio.CancelledError:
            engine.cancel(job)
            raise
        finally:
            # An error's traceback has this frame, and the future has the error: a
            # circle that would keep what the error's frames know, perhaps much.
            del future

    @overload
    def map(
        self,
        fn: Callable[..., Awaitable[T]],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        chunksize: int | Literal["auto"] = ...,
        buffersize: int | None = ...,
        ordered: bool = ...,
        return_exceptions: bool = ...,
    ) -> Results[T]: ...
    @overload
    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        chunksize: int | Literal["auto"] = ...,
        buffersize: int | None = ...,
        ordered: bool = ...,
        return_exceptions: bool = ...,
    ) -> Results[T]: ...
    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any] | AsyncIterable[Any],
        chunksize: int | Literal["auto"] = "auto",
        buffersize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> Results[Any]:
        """Call a function with each item and give the results as they are asked for.

        It is lazy: never more than `buffersize` items are taken ahead of the consumer,
        so endless iterables work. Leaving the loop early cancels what was taken.

        Awaited instead, it gives all results as a list, which is faster where items are
        tiny: ``results = await pool.map(fn, items)``.

        Short items share jobs, as a call costs more than they do: a million of them
        take about a second. Limits such as `timeout` are those of a job, so of all
        items that share one.

        Args:
            fn: called as ``fn(a, b, ...)`` with one item of each iterable.
            *iterables: items, also asynchronous ones; the shortest ends it.
            chunksize: items that share a job; "auto": as many as run for 10 ms
                together, as measured, and one each where `retries` are asked for.
            buffersize: items taken ahead of the consumer; None: a few jobs for each
                worker.
            ordered: yield in the order of the items, or else as results come.
            return_exceptions: yield the exception of an item that fails in the place of
                its result, and go on.

        Returns:
            What the function returned for each item, to iterate over asynchronously or
            to await.

        Raises:
            Exception: whatever `run` raises for an item, after the results before it;
                the rest is cancelled. Its ``item_index`` tells which item it was.
        """
        if self._job_options.batch is not None:
            raise _not_gathered("map")
        whole("chunksize", 1 if chunksize == "auto" else chunksize, least=1)
        if buffersize is not None:
            whole("buffersize", buffersize, least=1)
        plan = Plan(
            self._pool._engine_now(),
            fn,
            source_of(iterables),
            self._job_options,
            chunksize=None if chunksize == "auto" else chunksize,
            buffersize=buffersize,
            ahead=self._pool._jobs_ahead(),
            ordered=ordered,
            return_exceptions=return_exceptions,
        )
        return Results(plan)

    def stream(
        self,
        fn: Callable[P, AsyncIterator[T] | Iterator[T]],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Stream[T]:
        """Run a generator function in a worker and yield its parts as they come.

        It begins when the first part is asked for. The generator then runs ahead of its
        consumer, by 256 parts or 32 MiB at most (option `buffersize`), and waits in its
        `yield`. It has a worker for itself until it ends. Leaving the loop closes it.

        Args:
            fn: a generator function, also an asynchronous one, or a function that
                returns an iterator.
            *args: its positional arguments.
            **kwargs: its keyword arguments.

        Returns:
            An asynchronous iterator of the parts. It raises what `run` raises, and what
            the generator raised, after the parts that came before. `timeout` and
            `run_timeout` end when the last part has arrived here, and count the time in
            which the generator waits for its consumer. A stream that has given a part
            is not tried again.
        """
        if self._job_options.batch is not None:
            raise _not_gathered("stream")
        engine = self._pool._engine_now()
        return Stream(engine.stream(fn, args, kwargs, self._job_options))


def _not_gathered(face: str) -> UsageError:
    return UsageError(
        f"{face} calls a function once for each item, and one with `batch` takes lists;"
        " await single calls, which are gathered, or use options(batch=None)"
    )
