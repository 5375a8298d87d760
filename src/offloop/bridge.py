"""From any thread to a pool and back: the thread of an executor, and its futures.

    any thread             thread of the executor, with an event loop and a pool
    ──────────             ─────────────────────────────────────────────────────
    submit ──▶ inbox ─────▶ take ──▶ pool.submit ──▶ Job
                wakes the loop once for many           │
    result ◀── Future ◀──── settle ◀───────────────────┘

The thread begins with the first call and ends after `finish`, at the end of the program
or when nobody holds the executor any more; always after the work is done. Calls cross
to it in a list under one lock, and the loop is woken only when that list was empty, so
that a thousand calls cost one wake-up.

It decides nothing about jobs: that is the pool's. It never runs anything of the user's
on its thread but pickling and the callbacks of futures.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import weakref
from collections import deque
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from offloop.ahead import Plan, batches_ahead
from offloop.core.admission import refusal
from offloop.core.policies import DrainRate
from offloop.errors import (
    InternalError,
    PoolClosed,
    StartError,
    WorkerLost,
    WrongLoop,
)
from offloop.mapping import End, Mapping
from offloop.standard_errors import ExecutorStartError, as_standard, with_face

if TYPE_CHECKING:
    from collections.abc import Callable

    from offloop.engines.base import Job
    from offloop.pool import Pool

T = TypeVar("T")

# Calls taken from the inbox before the loop gets its turn: a few hundred microseconds.
_SLICE = 32


class JobFuture(Future[T]):
    """A future whose cancellation also reaches a job that runs.

    It is never in the standard library's RUNNING state, in which `cancel` would refuse.
    """

    _bridge: Bridge
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


class Call:
    """A call on its way from the thread that made it."""

    __slots__ = ("args", "context", "fn", "future", "kwargs")

    def __init__(
        self,
        future: JobFuture[Any],
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        self.future = future
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        #: of the thread that made it
        self.context = copy_context()


class Bridge:
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
        self._inbox: deque[Call | Mapping | JobFuture[Any]] = deque()
        #: the loop has been woken, and will find what is in the inbox
        self._woken = False
        #: the thread's event loop while it runs
        self._loop: asyncio.AbstractEventLoop | None = None
        #: calls whose future is not done
        self._pending = 0
        #: how fast they end, if their number is limited
        self._drain = DrainRate()
        #: makes the error with which calls are refused; None while they are taken
        self._refusal: Callable[[], Exception] | None = None
        self._cancel_futures = False
        #: what is to end by force: nothing, or the workers, asked before or not
        self._force: Literal["", "terminate", "kill"] = ""

        # The thread's own:
        #: futures whose job has not ended
        self._open: set[JobFuture[Any]] = set()
        #: why no worker can be had; None while they can
        self._broken: Exception | None = None
        self._finished: asyncio.Future[None]

        #: end the pool by force
        self._forcing: list[asyncio.Task[None]] = []
        #: maps whose task has not ended
        self._maps: dict[Mapping, asyncio.Task[BaseException | None]] = {}

    # Any thread

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        future: JobFuture[Any] = JobFuture()
        future._bridge = self
        self.post(Call(future, fn, args, kwargs))
        return future

    def post(self, item: Call | Mapping) -> None:
        """Hand a call or a map over to the thread, unless it is refused."""
        if os.getpid() != self._pid:
            raise WrongLoop(
                f"executor {self.name!r} was made in process {self._pid}, from which "
                "this one was forked; make a new one here"
            )
        with self._lock:
            if self._refusal is not None:
                raise self._refusal()
            if type(item) is Call:
                if self._max_pending is not None:
                    self._check_room(self._max_pending)
                self._pending += 1
            if not self._woken:
                self._wake()
            self._inbox.append(item)

    def feed(self, mapping: Mapping, rows: list[Any], *, last: bool) -> None:
        """Hand further items of a map over."""
        with self._lock:
            if rows and self._refusal is not None:
                raise self._refusal()
            if self._loop is not None and mapping.box is not None:
                receive = mapping.box.receive
                self._loop.call_soon_threadsafe(receive, rows, last)

    def post_end(self, mapping: Mapping) -> None:
        """Stop a map whose results nobody wants any more."""
        with self._lock:
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._stop_map, mapping)

    def cancelled(self, future: JobFuture[Any]) -> None:
        with self._lock:
            if self._loop is None and self._thread is not None:
                return  # the end has come, and with it all futures are done
            self._inbox.append(future)
            if not self._woken:
                self._wake()

    def finish(
        self,
        *,
        cancel_futures: bool = False,
        force: Literal["", "terminate", "kill"] = "",
    ) -> None:
        """Take no more calls; the thread ends when the work is done.

        Args:
            cancel_futures: cancel the calls that no worker has.
            force: do not wait for those that one has either.
        """
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._refusal is None:
                self._refusal = self._shut
            self._cancel_futures = self._cancel_futures or cancel_futures
            self._force = force or self._force
            if self._loop is not None and not self._woken:
                self._wake()

    def join(self) -> None:
        """Wait for the end of the thread, unless this is it."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _shut(self) -> Exception:
        return PoolClosed(
            f"cannot schedule new futures: executor {self.name!r} was shut down; make "
            "a new one"
        )

    def _check_room(self, limit: int) -> None:
        now = time.monotonic()
        if self._pending >= limit:
            what = f"{self._pending:,} calls are pending"
            wait = self._drain.next_end(now)
            raise refusal(what, "max_pending", self._pending, limit, wait)
        if not self._pending:
            self._drain.resumed(now)

    def _wake(self) -> None:
        """See to it that the thread looks into the inbox; the lock is held."""
        if self._thread is None:
            self._start()
        elif self._loop is not None:  # else it is about to look by itself
            self._loop.call_soon_threadsafe(self._take)
        self._woken = True

    def _start(self) -> None:
        if _exiting:
            raise PoolClosed(
                f"cannot schedule new futures: executor {self.name!r} cannot start "
                "while the program ends"
            )
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
            if not self._force:
                self._break(error)
        try:
            await self._finished
            while self._maps:
                await asyncio.wait(self._maps.values())
                await asyncio.sleep(0)
            if self._broken is None and not self._forcing:
                await self._pool.drain()
            await asyncio.gather(*self._forcing)
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
            self._refusal = partial(with_face, broken, ExecutorStartError)
        self._take()

    def _abandon(self) -> None:
        """Leave no future behind without an end, even after a bug of ours."""
        with self._lock:
            self._loop = None
            self._refusal = self._refusal or self._shut
            waiting = {item.future for item in self._inbox if type(item) is Call}
            maps = {item for item in self._inbox if type(item) is Mapping}
            self._inbox.clear()
        for mapping in maps | self._maps.keys():
            mapping.results.put(End(InternalError(f"thread {self.name!r} ended")))
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
            if type(item) is Call:
                self._begin(item)
            elif type(item) is Mapping:
                self._begin_map(item)
            elif item in self._open:
                item._job.cancel()
        if last:
            self._end_calls()
        elif self._woken:
            asyncio.get_running_loop().call_soon(self._take)

    def _begin(self, call: Call) -> None:
        future = call.future
        if self._force:
            Future.cancel(future)
        if future.cancelled():
            self._settled(future)
            return
        try:
            if self._broken is not None:
                raise self._broken
            submit = self._pool.submit
            job = call.context.run(submit, call.fn, *call.args, **call.kwargs)
        except BaseException as error:  # whatever pickling raises: it is the future's
            self._fail(future, error)
            self._settled(future)
            return
        future._job = job
        self._open.add(future)
        job.add_done_callback(partial(self._ended, future))

    def _begin_map(self, mapping: Mapping) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._map(mapping), context=mapping.context)
        self._maps[mapping] = task
        task.add_done_callback(partial(self._map_ended, mapping))

    async def _map(self, mapping: Mapping) -> BaseException | None:
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
            return as_standard(error)
        return None

    def _map_ended(
        self, mapping: Mapping, task: asyncio.Task[BaseException | None]
    ) -> None:
        del self._maps[mapping]
        mapping.results.put(
            End(CancelledError() if task.cancelled() else task.result())
        )

    def _stop_map(self, mapping: Mapping) -> None:
        if mapping in self._maps:
            self._maps[mapping].cancel()

    def _ended(self, future: JobFuture[Any], job: Job[Any]) -> None:
        if job.cancelled():
            Future.cancel(future)
        elif (error := job.exception()) is not None:
            self._fail(future, error)
        else:
            _unless_cancelled(future.set_result, job.result())
        self._open.discard(future)
        del future._job
        self._settled(future)

    def _fail(self, future: JobFuture[Any], error: BaseException) -> None:
        _unless_cancelled(future.set_exception, as_standard(error))

    def _settled(self, future: JobFuture[Any]) -> None:
        if future.cancelled():
            future.set_running_or_notify_cancel()  # tells `wait` and `as_completed`
        with self._lock:
            self._pending -= 1
            if self._max_pending is not None:
                self._drain.ended(time.monotonic())

    def _end_calls(self) -> None:
        """Let the thread end: no call will come, and none is in the inbox."""
        if self._force:
            self._end_by_force()
        elif self._cancel_futures:
            queued = sorted(self._open, key=lambda future: future._job.id)
            if not self._pool.stats().workers:
                # The workers are about to come: the first calls count as theirs.
                del queued[: self._pool._options.max_workers]
            for future in queued:
                if not future.running():
                    future._job.cancel()
            for task in self._maps.values():
                task.cancel()
        for mapping in self._maps:
            if mapping.box is not None:
                mapping.box.receive([], last=True)
        if not self._finished.done():
            self._finished.set_result(None)

    def _end_by_force(self) -> None:
        """End the workers, and with them all calls."""
        for future in self._open:
            if future.running():
                self._fail(future, self._ended_by_force(future._job))
        for task in self._maps.values():
            task.cancel()
        end = self._pool.kill if self._force == "kill" else self._pool.close
        self._forcing.append(asyncio.ensure_future(end()))

    def _ended_by_force(self, job: Job[Any]) -> WorkerLost:
        return WorkerLost(
            f"job {job.id} ({job.function}) was with worker {job.worker} when "
            f"{self._force}_workers of executor {self.name!r} was called, which ends "
            "all workers and takes no more calls",
            job_id=job.id,
            function=job.function,
            worker=job.worker,
            reason="shutdown",
            story=self._pool.story(job),
        )


def _unless_cancelled(settle: Callable[[Any], None], value: Any) -> None:
    with contextlib.suppress(InvalidStateError):  # another thread cancelled it just now
        settle(value)


#: bridges whose thread runs
_running: weakref.WeakSet[Bridge] = weakref.WeakSet()
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
