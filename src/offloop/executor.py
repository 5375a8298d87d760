"""A pool for programs without asyncio: a true `concurrent.futures.Executor`.

    any thread             thread of the executor, with an event loop and a pool
    ──────────             ─────────────────────────────────────────────────────
    submit ──▶ inbox ─────▶ take ──▶ pool.submit ──▶ Job
                wakes the loop once for many           │
    result ◀── Future ◀──── settle ◀───────────────────┘

The thread begins with the first call and ends after `shutdown`, at the end of the
program, or when nobody holds the executor any more; always after the work is done.
Calls cross to it in a list under one lock, and the loop is woken only when that list
was empty, so that a thousand calls cost one wake-up.

It decides nothing about jobs: that is the pool's. It never runs anything of the user's
on its thread but pickling and the callbacks of futures.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # its own hook at exit must stand before ours
import contextlib
import os
import queue
import threading
import time
import weakref
from collections import deque
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from pickle import PicklingError
from typing import TYPE_CHECKING, Any, Literal, Never, ParamSpec, TypeVar

from offloop.ahead import Mailbox, Plan, Rows, batches_ahead
from offloop.errors import (
    ControlFlowError,
    InternalError,
    NotOffloadable,
    PoolClosed,
    PoolFull,
    ResultNotEncodable,
    StartError,
    WorkerLost,
    WrongLoop,
)
from offloop.options import refuse_unknown, whole
from offloop.pool import Pool

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Generator,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from offloop.ahead import Source
    from offloop.engines.base import Job
    from offloop.options import Seconds

__all__ = [
    "Executor",
    "ExecutorNotOffloadable",
    "ExecutorResultNotEncodable",
    "ExecutorStartError",
    "ExecutorWorkerLost",
]

P = ParamSpec("P")
T = TypeVar("T")

# Calls taken from the inbox before the loop gets its turn: a few hundred microseconds.
_SLICE = 32


class ExecutorWorkerLost(WorkerLost, BrokenProcessPool):
    """`WorkerLost` as an executor raises it: a `BrokenExecutor` to those who know it.

    Only the job that ran is hit; the executor is not broken and goes on.
    """


class ExecutorStartError(StartError, BrokenProcessPool):
    """`StartError` as an executor raises it: this executor is broken."""


class ExecutorNotOffloadable(NotOffloadable, PicklingError):
    """`NotOffloadable` as an executor raises it: a `PicklingError` to those who ask."""


class ExecutorResultNotEncodable(ResultNotEncodable, PicklingError):
    """`ResultNotEncodable` as an executor raises it: a `PicklingError` likewise."""


class Executor(concurrent.futures.Executor):
    """Worker processes behind the standard library's interface.

    Usable from any thread. Nothing starts before the first call.

    Args:
        max_workers: processes; None: usable cores less one, at least 1.
        initializer: called once in each worker before its first job.
        initargs: its arguments.
        engine: where jobs run, as for `Pool`.
        max_pending: jobs that may be queued or running; `submit` raises `PoolFull`
            beyond. None: any number, as in the standard library.
        timeout: seconds from submission to result of each job; None: no limit.
        run_timeout: seconds from the start of each run; None: no limit.
        grace: seconds between asking a job to stop and killing its worker.
        retries: further attempts after a lost worker.
        preload: modules to import once, before the first worker is forked.
        threads_per_worker: threads that BLAS and OpenMP libraries start in each worker.
        env: variables for the workers, added to this process's.
        name: for messages, and of the thread.

    Raises:
        TypeError: for a word that is not an option, or a value of the wrong type.
        ValueError: for a value out of range.

    Example:
        with Executor() as executor:
            futures = [executor.submit(hash_file, path) for path in paths]
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        engine: str = "local",
        max_pending: int | None = None,
        timeout: Seconds | None = None,
        run_timeout: Seconds | None = None,
        grace: Seconds = 0.2,
        retries: int = 0,
        preload: Sequence[str] = (),
        threads_per_worker: int | None = 1,
        env: Mapping[str, str] | None = None,
        name: str = "executor",
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, _WORDS, "executor option")
        if max_pending is not None:
            whole("max_pending", max_pending, least=1)
        pool = Pool(
            max_workers,
            engine=engine,
            max_pending=None,  # counted here: a call must be refused in its own thread
            timeout=timeout,
            run_timeout=run_timeout,
            grace=grace,
            retries=retries,
            preload=preload,
            initializer=initializer,
            initargs=initargs,
            threads_per_worker=threads_per_worker,
            env=env,
            name=name,
        )
        #: read by libraries (dask, joblib) that size their own work by it
        self._max_workers = pool._options.max_workers
        self._bridge = _Bridge(pool, max_pending)
        # Without an owner no further call can come: it ends when its work is done.
        self._end = weakref.finalize(self, self._bridge.finish)
        self._end.atexit = False  # at the program's end `_finish_all` comes, and waits

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Queue a call.

        Arguments are encoded in the executor's thread, a moment later: do not change
        them before the future is done. What goes wrong with that is the future's error.

        Args:
            fn: what to call in a worker: any callable, `async def` functions included.
            *args: its positional arguments.
            **kwargs: its keyword arguments.

        Returns:
            The future of the result. Cancelling it also stops a job that runs.

        Raises:
            PoolClosed: after `shutdown`, or at the end of the program.
            PoolFull: `max_pending` jobs have not ended.
            ExecutorStartError: no worker can be started; a `BrokenExecutor`.
            WrongLoop: in a process that was forked from the executor's.
        """
        return self._bridge.submit(fn, args, kwargs)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | Literal["auto"] = "auto",
        buffersize: int | None = None,
    ) -> Generator[T]:
        """Call a function with each item, and give the results in order.

        Work begins at once. Items that are short share jobs, as `Pool.map` has it.

        Args:
            fn: called as ``fn(a, b, ...)`` with one item of each iterable.
            *iterables: items; the shortest ends it. Without `buffersize` all are read
                at once.
            timeout: seconds from this call until the last result; None: no limit.
            chunksize: items that share a job; "auto": as measured.
            buffersize: items read ahead of the results that were asked for; None: all.

        Returns:
            A generator of the results. Closing it stops what is going.

        Raises:
            PoolClosed, ExecutorStartError, WrongLoop: as `submit`.
            TimeoutError: from the iterator, when `timeout` has passed.
            Exception: from the iterator, what the first failing item raised.
        """
        whole("chunksize", 1 if chunksize == "auto" else chunksize, least=1)
        if buffersize is not None:
            whole("buffersize", buffersize, least=1)
        size = None if chunksize == "auto" else chunksize
        deadline = None if timeout is None else time.monotonic() + timeout
        spread = len(iterables) != 1
        rows = zip(*iterables, strict=False) if spread else iter(*iterables)
        mapping = _Mapping(fn, spread, size, buffersize, rows)
        self._bridge.post(mapping)
        results = _results(self._bridge, mapping, deadline)
        next(results)  # begun, it notices when it is closed before its first result
        return results

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and let the workers go when the work is done.

        Args:
            wait: return when all futures are done and all processes have ended. Called
                by a future's callback, it cannot wait and does not.
            cancel_futures: cancel the calls that no worker has got yet.
        """
        self._bridge.finish(cancel_futures=cancel_futures)
        if wait:
            self._bridge.join()

    def __repr__(self) -> str:
        return f"<Executor {self._bridge.name!r} max_workers={self._max_workers}>"


_WORDS = (
    "max_workers",
    "initializer",
    "initargs",
    "engine",
    "max_pending",
    "timeout",
    "run_timeout",
    "grace",
    "retries",
    "preload",
    "threads_per_worker",
    "env",
    "name",
)


class _JobFuture(Future[T]):
    """A future whose cancellation also reaches a job that runs.

    It is never in the standard library's RUNNING state, in which `cancel` would refuse.
    """

    _bridge: _Bridge
    #: the job, from the moment the pool has it until it has ended; not set otherwise
    _job: Job[T]

    def cancel(self) -> bool:
        """Cancel the call: queued, it never runs; running, it is stopped.

        Returns:
            False when it had ended already.
        """
        if not super().cancel():
            return False
        self._bridge.cancelled(self)
        return True

    def running(self) -> bool:
        """Tell whether a worker has the job."""
        job = getattr(self, "_job", None)
        return job is not None and not self.done() and job.state == "sent"


class _Call:
    """A call on its way from the thread that made it."""

    __slots__ = ("args", "fn", "future", "kwargs")

    def __init__(
        self,
        future: _JobFuture[Any],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.future = future
        self.fn = fn
        self.args = args
        self.kwargs = kwargs


class _Mapping:
    """A `map`, seen from both threads."""

    __slots__ = ("box", "chunksize", "ended", "fn", "rest", "results", "source")

    def __init__(
        self,
        fn: Callable[..., Any],
        spread: bool,
        chunksize: int | None,
        buffersize: int | None,
        rows: Iterator[Any],
    ) -> None:
        self.fn = fn
        self.chunksize = chunksize
        first = list(islice(rows, buffersize))
        if buffersize is not None and len(first) < buffersize:
            buffersize = None  # that was all
        #: items that are read as results are asked for
        self.rest = rows
        #: where they go; None if all were read at the call
        self.box = None if buffersize is None else Mailbox(spread, first)
        self.source: Source = self.box or Rows(first, spread)
        #: batches of results, and at last how it ended
        self.results: queue.SimpleQueue[list[Any] | _End] = queue.SimpleQueue()
        self.ended = False


class _End:
    """The end of a `map`: by an error, or because all is done."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _results(
    bridge: _Bridge, mapping: _Mapping, deadline: float | None
) -> Generator[Any]:
    """Give None and the results of a `map`; stop it when nobody asks any more."""
    try:
        yield None
        while True:
            wait = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            try:
                batch = mapping.results.get(timeout=wait)
            except queue.Empty:
                raise TimeoutError("`map` has not ended within its timeout") from None
            if isinstance(batch, _End):
                mapping.ended = True
                if batch.error is not None:
                    raise batch.error
                return
            if mapping.box is not None:
                rows = list(islice(mapping.rest, len(batch)))
                bridge.feed(mapping, rows, last=len(rows) < len(batch))
            batch.reverse()
            while batch:  # nothing of a result is kept here once it is given away
                yield batch.pop()
    finally:
        if not mapping.ended:
            bridge.post_end(mapping)


class _Bridge:
    """What an executor, its futures and its thread share.

    The futures and the thread hold it, and it does not know the executor: that may be
    collected while work is going on.
    """

    def __init__(self, pool: Pool, max_pending: int | None) -> None:
        self.name = pool._options.name
        self._pool = pool
        self._max_pending = max_pending
        self._pid = os.getpid()
        self._thread: threading.Thread | None = None

        # Reentrant: the garbage collector may call `finish` in the midst of `_take`.
        self._lock = threading.RLock()
        # Guarded by the lock:
        #: calls and maps, and futures that were cancelled, in order
        self._inbox: deque[_Call | _Mapping | _JobFuture[Any]] = deque()
        #: the loop has been woken, and will find what is in the inbox
        self._woken = False
        #: the thread's event loop while it runs
        self._loop: asyncio.AbstractEventLoop | None = None
        #: calls whose future is not done
        self._pending = 0
        #: makes the error with which calls are refused; None while they are taken
        self._refusal: Callable[[], Exception] | None = None
        self._cancel_futures = False

        # The thread's own:
        #: futures whose job has not ended
        self._open: set[_JobFuture[Any]] = set()
        #: why no worker can be had; None while they can
        self._broken: Exception | None = None
        self._finished: asyncio.Future[None]

        #: maps whose task has not ended
        self._maps: dict[_Mapping, asyncio.Task[BaseException | None]] = {}

    # Any thread

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        future: _JobFuture[Any] = _JobFuture()
        future._bridge = self
        self.post(_Call(future, fn, args, kwargs))
        return future

    def post(self, item: _Call | _Mapping) -> None:
        """Hand a call or a map over to the thread, unless it is refused."""
        if os.getpid() != self._pid:
            raise WrongLoop(
                f"executor {self.name!r} was made in process {self._pid}, from which "
                "this one was forked; make a new one here"
            )
        with self._lock:
            if self._refusal is not None:
                raise self._refusal()
            if type(item) is _Call:
                if self._max_pending is not None:
                    self._check_room(self._max_pending)
                self._pending += 1
            if not self._woken:
                self._wake()
            self._inbox.append(item)

    def feed(self, mapping: _Mapping, rows: list[Any], *, last: bool) -> None:
        """Hand further items of a map over."""
        with self._lock:
            if rows and self._refusal is not None:
                raise self._refusal()
            if self._loop is not None and mapping.box is not None:
                receive = mapping.box.receive
                self._loop.call_soon_threadsafe(receive, rows, last)

    def post_end(self, mapping: _Mapping) -> None:
        """Stop a map whose results nobody wants any more."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._stop_map, mapping)

    def cancelled(self, future: _JobFuture[Any]) -> None:
        with self._lock:
            if self._loop is None and self._thread is not None:
                return  # the end has come, and with it all futures are done
            self._inbox.append(future)
            if not self._woken:
                self._wake()

    def finish(self, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the thread ends when the work is done."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._refusal is None:
                self._refusal = self._shut
            self._cancel_futures = self._cancel_futures or cancel_futures
            if self._loop is not None and not self._woken:
                self._wake()

    def join(self) -> None:
        """Wait for the end of the thread, unless this is it."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _shut(self) -> Exception:
        return PoolClosed(
            f"executor {self.name!r} was shut down and takes no more calls; make a new "
            "one"
        )

    def _check_room(self, limit: int) -> None:
        if self._pending >= limit:
            raise PoolFull(
                f"{self._pending} calls are pending and max_pending is {limit}; this "
                "one was not queued. Try again when one has ended, or raise "
                "max_pending.",
                pending=self._pending,
                limit=limit,
            )

    def _wake(self) -> None:
        """See to it that the thread looks into the inbox; the lock is held."""
        if self._thread is None:
            self._start()
        elif self._loop is not None:  # else it is about to look by itself
            self._loop.call_soon_threadsafe(self._take)
        self._woken = True

    def _start(self) -> None:
        if _exiting:
            raise PoolClosed(f"executor {self.name!r} cannot start: the program ends")
        thread = threading.Thread(target=self._run, name=self.name)
        thread.start()
        self._thread = thread
        _running.add(self)

    # The thread

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._abandon()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        self._finished = loop.create_future()
        with self._lock:
            self._loop = loop
        try:
            self._pool._begin()
            self._take()
            await self._pool._engine_now().started()
        except Exception as error:
            self._break(error)
        try:
            await self._finished
            while self._maps:
                await asyncio.wait(self._maps.values())
                await asyncio.sleep(0)
            if self._broken is None:
                await self._pool.drain()
        finally:
            await self._pool.close()
            with self._lock:
                self._loop = None  # it closes now, and must not be woken any more

    def _break(self, error: Exception) -> None:
        """Refuse all further calls, and let those fail that wait in the inbox."""
        self._broken = broken = StartError(str(error))
        broken.__dict__.update(error.__dict__)
        broken.__cause__ = error.__cause__
        with self._lock:
            self._refusal = partial(_face, broken, ExecutorStartError)
        self._take()

    def _abandon(self) -> None:
        """Leave no future behind without an end, even after a bug of ours."""
        with self._lock:
            self._loop = None
            self._refusal = self._refusal or self._shut
            waiting = {item.future for item in self._inbox if type(item) is _Call}
            maps = {item for item in self._inbox if type(item) is _Mapping}
            self._inbox.clear()
        for mapping in maps | self._maps.keys():
            mapping.results.put(_End(InternalError(f"thread {self.name!r} ended")))
        for future in waiting | self._open:
            self._fail(
                future, InternalError(f"the thread of executor {self.name!r} ended")
            )
            self._settled(future)
        _running.discard(self)

    def _take(self) -> None:
        """Work off the inbox, in slices: a burst cannot hold the loop."""
        with self._lock:
            inbox = self._inbox
            items = [inbox.popleft() for _ in range(min(len(inbox), _SLICE))]
            self._woken = bool(inbox)
            last = self._refusal is not None and not inbox
        for item in items:
            if type(item) is _Call:
                self._begin(item)
            elif type(item) is _Mapping:
                self._begin_map(item)
            elif item in self._open:
                item._job.cancel()
        if last:
            self._end_calls()
        elif self._woken:
            asyncio.get_running_loop().call_soon(self._take)

    def _begin(self, call: _Call) -> None:
        future = call.future
        if future.cancelled():
            self._settled(future)
            return
        try:
            if self._broken is not None:
                raise self._broken
            job = self._pool.submit(call.fn, *call.args, **call.kwargs)
        except BaseException as error:  # whatever pickling raises: it is the future's
            self._fail(future, error)
            self._settled(future)
            return
        future._job = job
        self._open.add(future)
        job.add_done_callback(partial(self._ended, future))

    def _begin_map(self, mapping: _Mapping) -> None:
        task = asyncio.get_running_loop().create_task(self._map(mapping))
        self._maps[mapping] = task
        task.add_done_callback(partial(self._map_ended, mapping))

    async def _map(self, mapping: _Mapping) -> BaseException | None:
        """Run a map and hand its results over as they come; returns how it failed.

        It does not raise it: a task that raises SystemExit ends its loop.
        """
        pool = self._pool
        try:
            if self._broken is not None:
                raise self._broken
            plan = Plan(
                pool._engine_now(),
                mapping.fn,
                mapping.source,
                pool._job_options,
                chunksize=mapping.chunksize,
                buffersize=None,
                ahead=pool._jobs_ahead(),
                ordered=True,
                return_exceptions=False,
            )
            async for batch in batches_ahead(plan):
                mapping.results.put(batch)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return _as_executor_error(error)
        return None

    def _map_ended(
        self, mapping: _Mapping, task: asyncio.Task[BaseException | None]
    ) -> None:
        del self._maps[mapping]
        mapping.results.put(
            _End(CancelledError() if task.cancelled() else task.result())
        )

    def _stop_map(self, mapping: _Mapping) -> None:
        if mapping in self._maps:
            self._maps[mapping].cancel()

    def _ended(self, future: _JobFuture[Any], job: Job[Any]) -> None:
        if job.cancelled():
            Future.cancel(future)
        elif (error := job.exception()) is not None:
            self._fail(future, error)
        else:
            _unless_cancelled(future.set_result, job.result())
        self._open.discard(future)
        del future._job
        self._settled(future)

    def _fail(self, future: _JobFuture[Any], error: BaseException) -> None:
        _unless_cancelled(future.set_exception, _as_executor_error(error))

    def _settled(self, future: _JobFuture[Any]) -> None:
        if future.cancelled():
            future.set_running_or_notify_cancel()  # tells `wait` and `as_completed`
        with self._lock:
            self._pending -= 1

    def _end_calls(self) -> None:
        """Let the thread end: no call will come, and none is in the inbox."""
        if self._cancel_futures:
            for future in list(self._open):
                if not future.running():
                    future._job.cancel()
            for task in self._maps.values():
                task.cancel()
        for mapping in self._maps:
            if mapping.box is not None:
                mapping.box.receive([], last=True)
        if not self._finished.done():
            self._finished.set_result(None)


def _unless_cancelled(settle: Callable[[Any], None], value: Any) -> None:
    with contextlib.suppress(InvalidStateError):  # another thread cancelled it just now
        settle(value)


#: how errors of ours look to those who know `concurrent.futures`
_FACES: dict[type[BaseException], type[Exception]] = {
    WorkerLost: ExecutorWorkerLost,
    StartError: ExecutorStartError,
    NotOffloadable: ExecutorNotOffloadable,
    ResultNotEncodable: ExecutorResultNotEncodable,
}


def _as_executor_error(error: BaseException) -> BaseException:
    """Return the error as users of `concurrent.futures` know it.

    Always a new object for those of ours: one that is shared between futures would
    collect the tracebacks of all who raise it.
    """
    if isinstance(error, ControlFlowError) and error.__cause__ is not None:
        return error.__cause__
    face = _FACES.get(type(error))
    return error if face is None else _face(error, face)


def _face(error: BaseException, cls: type[Exception]) -> Exception:
    face = cls(str(error))
    face.__dict__.update(error.__dict__)
    face.__cause__ = error.__cause__
    return face


#: bridges whose thread runs
_running: weakref.WeakSet[_Bridge] = weakref.WeakSet()
#: the program is at its end: no thread may be started any more
_exiting = False


def _finish_all() -> None:
    """Finish all work at the end of the program, as the standard library does."""
    global _exiting
    _exiting = True
    for bridge in list(_running):
        bridge.finish()
    for bridge in list(_running):
        bridge.join()


# Before the interpreter joins its threads, which `atexit` would come too late for. The
# standard library's executors register in the same place.
threading._register_atexit(_finish_all)  # type: ignore[attr-defined]
