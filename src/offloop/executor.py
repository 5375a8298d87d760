"""A pool for programs without asyncio: a true `concurrent.futures.Executor`.

It checks what it is given, and hands calls to the `bridge`, whose thread has the pool.
"""

from __future__ import annotations

import concurrent.futures
import queue
import time
import weakref
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Never, ParamSpec, TypeVar

from offloop.bridge import Bridge
from offloop.mapping import End, Mapping
from offloop.options import refuse_unknown, whole
from offloop.pool import Pool
from offloop.standard_errors import (
    ExecutorNotOffloadable,
    ExecutorResultNotEncodable,
    ExecutorStartError,
    ExecutorWorkerLost,
)

if TYPE_CHECKING:
    from collections import abc
    from collections.abc import Callable, Generator, Iterable, Sequence
    from concurrent.futures import Future

    from offloop.options import Recycle, Seconds, Size

__all__ = [
    "Executor",
    "ExecutorNotOffloadable",
    "ExecutorResultNotEncodable",
    "ExecutorStartError",
    "ExecutorWorkerLost",
]

P = ParamSpec("P")
T = TypeVar("T")


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
        arena_limit, min_workers, idle_timeout, spare_workers, isolation, sandbox,
            recycle, memory_limit, slow_job, control, forward_logs, capture_output:
            as of `Pool`.

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
        env: abc.Mapping[str, str] | None = None,
        name: str = "executor",
        arena_limit: Size | None = None,
        min_workers: int | None = None,
        idle_timeout: Seconds | None = None,
        spare_workers: int = 0,
        isolation: Literal["process"] | None = None,
        sandbox: bool = False,
        recycle: Recycle | None = None,
        memory_limit: Size | None = None,
        slow_job: Seconds | None = None,
        control: bool = True,
        forward_logs: bool = True,
        capture_output: bool = False,
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
            arena_limit=arena_limit,
            min_workers=min_workers,
            idle_timeout=idle_timeout,
            spare_workers=spare_workers,
            isolation=isolation,
            sandbox=sandbox,
            recycle=recycle,
            memory_limit=memory_limit,
            slow_job=slow_job,
            control=control,
            forward_logs=forward_logs,
            capture_output=capture_output,
        )
        #: read by libraries (dask, joblib) that size their own work by it
        self._max_workers = pool._options.max_workers
        self._bridge = Bridge(pool, max_pending)
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
        mapping = Mapping(fn, spread, size, buffersize, rows)
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

    def terminate_workers(self) -> None:
        """Take no more calls, cancel those that wait, and stop those that run.

        Does not wait for that. What runs is asked to stop, so that its `finally` blocks
        run, and killed after `grace`; its future fails with `WorkerLost` at once. A map
        ends with CancelledError. As in Python 3.14's process pool, on every version.
        """
        self._bridge.finish(force="terminate")

    def kill_workers(self) -> None:
        """Do what `terminate_workers` does, and ask nobody: what runs is killed."""
        self._bridge.finish(force="kill")

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
    "arena_limit",
    "min_workers",
    "idle_timeout",
    "spare_workers",
    "isolation",
    "sandbox",
    "recycle",
    "memory_limit",
    "slow_job",
    "control",
    "forward_logs",
    "capture_output",
)


def _results(
    bridge: Bridge, mapping: Mapping, deadline: float | None
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
            if isinstance(batch, End):
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
