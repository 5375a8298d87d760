"""The pool, for asyncio: its options, its beginning and its end.

A pool belongs to one event loop. It does nothing until it is started, hands everything
to its engine, and never touches a process, a socket or a byte itself. The calls that it
takes are those of `view`.
"""

from __future__ import annotations

import asyncio
import enum
import os
import threading
import warnings
import weakref
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Never, Self, TypeVar

from offloop.engines.base import Job, PoolStats, Progress, Stream, Timings
from offloop.engines.choice import load_engine
from offloop.errors import PoolClosed, UsageError, WrongLoop
from offloop.gathering import Gathering
from offloop.loop_end import at_loop_end
from offloop.options import (
    JobOptions,
    PoolOptions,
    Recycle,
    Seconds,
    Size,
    chosen_engine,
    refuse_unknown,
    seconds,
    whole,
)
from offloop.telemetry import events
from offloop.telemetry.events import Event, Listeners
from offloop.view import PoolView

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from types import TracebackType

    from offloop.engines.base import Engine, WorkerDump

__all__ = ["Job", "Pool", "PoolStats", "PoolView", "Progress", "Stream", "Timings"]

E = TypeVar("E", bound=Event)


class _State(enum.Enum):
    NEW = "was not started: use `async with pool:` or `await pool.start()`"
    OPEN = "is open"
    CLOSING = "is closing and takes no more jobs"
    CLOSED = "is closed"


_OPEN = _State.OPEN

# All that were started; those of other loops and those that are closed among them.
_started: weakref.WeakSet[Pool] = weakref.WeakSet()

_running_loop = asyncio._get_running_loop  # None, not an error, when there is none


class Pool(PoolView):
    """Worker processes for an asyncio program.

    It starts with `async with` or `await start()`, and does nothing before. Leaving
    `async with` normally drains the pool; leaving it by an exception cancels what is
    pending, as a TaskGroup does.

    Args:
        max_workers: processes; None: usable cores less one, at least 1, with affinity
            and container quotas respected.
        engine: where jobs run: "local" (processes of this machine) or "inline" (here,
            for debugging and tests). The variable OFFLOOP_ENGINE overrides it.
        max_pending: jobs that may be queued or running; None: any number.
        max_pending_bytes: bytes of encoded arguments, or a text such as "512MiB", from
            which no further job is taken until others have ended; None: any number.
        timeout: seconds from submission to result of each job; None: no limit.
        run_timeout: seconds from the start of each run; None: no limit.
        arena_limit: bytes, or a text such as "512MiB", of shared memory for arguments
            of 16 KiB and more, and as many for results; None: a quarter of what this
            machine or container has.
        grace: seconds between asking a job to stop and killing its worker.
        retries: further attempts after a lost worker.
        preload: modules to import once, before the first worker is forked.
        initializer: called once in each worker before its first job.
        initargs: its arguments.
        threads_per_worker: threads that BLAS and OpenMP libraries start in each worker;
            None: what they like. Variables that are set already are left alone.
        env: variables for the workers, added to this process's.
        name: for messages.
        min_workers: processes that there always are; more come, up to `max_workers`,
            when jobs wait, and go when they are idle. None: the size is fixed, or, with
            `idle_timeout`, 0.
        idle_timeout: seconds after which an idle process goes; None: 60, if the size is
            not fixed.
        spare_workers: processes beside those, ready and idle: one takes the place of a
            worker that was killed, or that an elastic pool needs, without a start.
        isolation: "process" gives each job a process of its own, forked before it is
            needed; None: workers are used again.
        sandbox: jobs get no network, start no programs, and signal nobody (Linux); see
            `offloop.sandbox` for what it gives and what not. Needs `isolation`.
        recycle: when a worker is replaced by a fresh one; None: never. No job waits for
            that or is lost by it.
        memory_limit: bytes that a worker may hold for itself while it runs a job; the
            job that asks for more ends with MemoryLimitExceeded. None: any number.

    Raises:
        TypeError: for a word that is not an option, or a value of the wrong type.
        ValueError: for a value out of range.

    Example:
        async with Pool() as pool:
            digest = await pool.run(hash_file, path)
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        engine: str = "local",
        max_pending: int | None = 100_000,
        max_pending_bytes: Size | None = None,
        arena_limit: Size | None = None,
        timeout: Seconds | None = None,
        run_timeout: Seconds | None = None,
        grace: Seconds = 0.2,
        retries: int = 0,
        preload: Sequence[str] = (),
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        threads_per_worker: int | None = 1,
        env: Mapping[str, str] | None = None,
        name: str = "offloop",
        min_workers: int | None = None,
        idle_timeout: Seconds | None = None,
        spare_workers: int = 0,
        recycle: Recycle | None = None,
        memory_limit: Size | None = None,
        pin_cpus: bool = False,
        isolation: Literal["process"] | None = None,
        sandbox: bool = False,
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, _POOL_WORDS, "pool option")
        _refuse_later(
            pin_cpus=pin_cpus or None,
        )
        job = JobOptions().changed(
            {"timeout": timeout, "run_timeout": run_timeout, "retries": retries}
        )
        sized: dict[str, Any] = {}
        if max_workers is not None:
            sized["max_workers"] = max_workers
        if arena_limit is not None:
            sized["arena_limit"] = arena_limit
        self._options = PoolOptions(
            engine=chosen_engine(engine),
            max_pending=max_pending,
            max_pending_bytes=max_pending_bytes,  # type: ignore[arg-type]  # an int soon
            grace=grace,  # type: ignore[arg-type]  # made a float by the options
            preload=preload,  # type: ignore[arg-type]  # made a tuple by the options
            initializer=initializer,
            initargs=initargs,
            threads_per_worker=threads_per_worker,
            env=env or {},
            name=name,
            min_workers=min_workers,
            idle_timeout=idle_timeout,  # type: ignore[arg-type]  # made a float there
            spare_workers=spare_workers,
            isolation=isolation,
            sandbox=sandbox,
            recycle=recycle,
            memory_limit=memory_limit,  # type: ignore[arg-type]  # made an int there
            job=job,
            **sized,
        )
        super().__init__(self, job)
        self._make_engine = load_engine(self._options.engine)
        self._listeners = Listeners(name)
        #: ends the engine, once for all who ask for that; None before
        self._ending: asyncio.Task[None] | None = None
        #: drains it for `stop`; None while nobody has asked for that
        self._stopping: asyncio.Task[int] | None = None
        self._engine: Engine | None = None
        #: calls that share runs, once there are such
        self._gathering: Gathering | None = None
        self._state = _State.NEW
        #: has the pool closed when its loop ends; None before the start and after that
        self._keeper: AsyncGenerator[None] | None = None
        #: that is how it is meant to end, and nothing to warn of
        self._ends_with_loop = False
        #: the loop and process that the pool belongs to, once it is started
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    async def start(self) -> Self:
        """Start the workers and wait for the first one. Does nothing when it is open.

        Raises:
            StartError: when no worker can start; carries what the worker said.
            PoolClosed: when the pool was closed; a pool is not started twice.
        """
        if self._state is _State.OPEN:
            self._check_home()
            return self
        engine = self._open()
        try:
            engine.begin()
            await engine.started()
        except BaseException:
            await self._close_engine()
            raise
        return self

    @property
    def is_open(self) -> bool:
        """True from the start of the pool until its end begins."""
        return self._state is _State.OPEN

    async def ready(self) -> None:
        """Wait until all workers are ready, their `initializer` included.

        Raises:
            StartError: when workers cannot start.
        """
        await self._engine_now().ready()

    async def drain(self) -> None:
        """Take no more jobs and wait until all have ended."""
        engine = self._engine_now()
        self._take_no_more(engine)
        await engine.drain()

    async def stop(self, deadline: Seconds = 30.0) -> int:
        """Drain for a while, then cancel what has not ended, and close.

        Args:
            deadline: seconds from now that jobs have to end in; 0 gives them none.

        Returns:
            The number of jobs that were cancelled.
        """
        limit = seconds("deadline", deadline, least=0.0)
        if self._engine is None or self._state is _State.CLOSED:
            await self.close()
            return 0
        self._check_home()
        self._take_no_more(self._engine)
        self._stopping = asyncio.ensure_future(self._stop(self._engine, limit))
        return await self._stopping

    async def _stop(self, engine: Engine, limit: float) -> int:
        cut = 0
        try:
            async with asyncio.timeout(limit):
                await engine.drain()
        except TimeoutError:
            cut = engine.stats().pending
        await self.close()
        return cut

    async def close(self) -> None:
        """Cancel what is pending and end all workers; harmless when it is closed.

        Jobs that run are asked to stop, and killed after `grace`.
        """
        if self._state is _State.NEW:
            self._state = _State.CLOSED
        if self._state is not _State.CLOSED:
            self._check_home()
            await self._close_engine()

    async def kill(self) -> None:
        """Close at once: running jobs are killed and not asked to stop.

        May be called while `drain`, `stop` or `close` is under way, which then ends.
        """
        if self._engine is not None and self._state is not _State.CLOSED:
            self._check_home()
            self._engine.kill()
        await self.close()

    def on(
        self, event: type[E] | str, callback: Callable[[E], object]
    ) -> Callable[[], None]:
        """Have something called whenever an event happens; may be called at any time.

        Args:
            event: a class of `offloop.telemetry.events` or its name, such as
                `WorkerEnded` or "worker_ended"; `Event` stands for all of them.
            callback: called with the event, on the event loop, soon after it happened.
                What it raises is logged and harms nobody.

        Returns:
            A function that ends this.

        Raises:
            ValueError: there is no such event.
            TypeError: the callback is a coroutine function, or cannot be called.
        """
        return self._listeners.add(event, callback)

    async def aclose(self) -> None:
        """Do what `close` does, under the name that `contextlib.aclosing` calls."""
        await self.close()

    def empty(self, shape: int | tuple[int, ...], dtype: Any = "float64") -> Any:
        """Return a new numpy array that jobs get without a copy.

        Its content is arbitrary. It lies in memory that the workers see. They get it
        read-only, and see what you write later: fill it, send it, and then leave it
        alone. The first array of a size takes 0.3 ms a megabyte, as the system clears
        its memory; later ones next to nothing.

        Args:
            shape: an int or a tuple of ints.
            dtype: anything that `numpy.dtype` takes.

        Raises:
            PoolFull: `arena_limit` bytes are in use.
            TypeError: the dtype holds Python objects.
        """
        return self._engine_now().empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any = "float64") -> Any:
        """Return an array as `empty` does, full of zeros."""
        return self._engine_now().empty(shape, dtype, zero=True)

    async def put(self, obj: object) -> Any:
        """Send an object once, for any number of jobs.

        Args:
            obj: anything that can be an argument. It must not change until this
                returns.

        Returns:
            A `Ref`. Use it as an argument of jobs of this pool, alone or inside of
            containers: they get the object, its arrays read-only. It is dropped with
            the last reference.

        Raises:
            NotOffloadable: it cannot be sent.
            PoolFull: it is larger than `arena_limit`.
        """
        return await self._engine_now().put(obj)

    async def wait_capacity(self) -> None:
        """Wait until one more job would be accepted, behind those who wait already.

        A `submit` directly after it does not raise `PoolFull`.

        Raises:
            PoolClosed: the pool is not open, or was closed meanwhile.
        """
        await self._engine_now().wait_room()

    async def resize(self, max_workers: int) -> None:
        """Change `max_workers`; running jobs are not disturbed.

        A pool of a fixed size has so many when this returns; an elastic one may.

        Raises:
            ValueError: for less than 1.
        """
        whole("max_workers", max_workers, least=1)
        await self._engine_now().resize(max_workers)

    async def reload(self, probe: Callable[[], object] | None = None) -> None:
        """Replace all workers by ones that import your code anew; no job is lost.

        One worker of the new code is tried first. If it cannot start, or fails the
        probe, the old ones stay. Otherwise they are replaced one by one, each while it
        finishes its job. Functions that travel by value (from `__main__`, lambdas) are
        those of this process, which is not reloaded.

        Args:
            probe: called in the new worker; if it raises, or returns False, the new
                code is refused.

        Raises:
            StartError: the new code was refused; says why.
            NotOffloadable: the probe cannot be sent.
        """
        await self._engine_now().reload(probe)

    async def dump(self) -> list[WorkerDump]:
        """Return what each worker is doing now, with tracebacks of its threads.

        Works in an endless loop of C code too; takes some milliseconds, and disturbs
        nobody. A worker that somebody has stopped says so.
        """
        return await self._engine_now().dump()

    def stats(self) -> PoolStats:
        """Return what the pool is doing and has done; all zero before it is started."""
        return PoolStats() if self._engine is None else self._engine.stats()

    def story(self, job: Job[Any]) -> str:
        """Return what happened to a job so far, in words."""
        return self._engine_now().story(job)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._stopping is not None and not self._stopping.done():
                # Somebody else lets the jobs end, those that others wait for included.
                await asyncio.wait([self._stopping])
            elif kind is None and self._state is _State.OPEN:
                await self.drain()
        finally:
            await self.close()

    def __del__(self, warn: Callable[..., None] = warnings.warn) -> None:
        if getattr(self, "_state", None) in (_State.OPEN, _State.CLOSING):
            try:
                self._warn_unclosed(warn)
            finally:
                _abandon_those_of_closed_loops()

    def _warn_unclosed(self, warn: Callable[..., None] = warnings.warn) -> None:
        warn(
            f"{self!r} was never closed; use `async with` or `await pool.close()`. "
            "It ends with its event loop.",
            ResourceWarning,
            source=self,
            stacklevel=3,
        )

    def __repr__(self) -> str:
        workers = self._options.max_workers
        state = self._state.name.lower()
        return f"<Pool {self._options.name!r} max_workers={workers} {state}>"

    def _open(self) -> Engine:
        """Make the engine; the running loop is the pool's home from now on."""
        if self._state is not _State.NEW:
            raise PoolClosed(f"{self!r} {self._state.value}; make a new one")
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        engine = self._make_engine(self._options, self._listeners)
        act = partial(_close_with_loop, weakref.ref(self), engine)
        self._keeper = at_loop_end(act)
        # The engine lives as long as the loop has anything of it.
        engine.keeper = self._keeper, self if self._ends_with_loop else None
        _abandon_those_of_closed_loops()
        _engines.add(engine)
        self._engine = engine
        self._state = _State.OPEN
        _started.add(self)
        self._listeners.tell(events.PoolOpened, workers=self._options.max_workers)
        return engine

    def _gathered(self) -> Gathering:
        if self._gathering is None:
            self._gathering = Gathering(self._run_alone)
        return self._gathering

    async def _run_alone(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions,
    ) -> Any:
        """Run a call that stands for several."""
        view = PoolView(self, replace(options, single_flight=False, batch=None))
        return await view.run(fn, *args, **kwargs)

    def _begin(self) -> None:
        """Start without waiting: jobs queue up until the first worker is ready."""
        self._open().begin()

    def _engine_now(self) -> Engine:
        """Return the engine if the pool is open and this is its home.

        Raises:
            PoolClosed, WrongLoop: if not.
        """
        engine = self._engine
        if self._state is not _OPEN or engine is None:
            raise PoolClosed(f"{self!r} {self._state.value}")
        if _running_loop() is not self._loop:
            self._check_home()
        return engine

    def _check_home(self) -> None:
        here = _running_loop()
        if here is self._loop and here is not None:
            return
        if self._pid != os.getpid():
            why = "it was started in the process that this one was forked from"
        elif here is not None:
            why = "it was started in another event loop"
        else:
            thread = threading.current_thread().name
            why = f"no event loop is running in this thread ({thread})"
        raise WrongLoop(
            f"{self!r} cannot be used here: {why}. Start a pool in each loop that "
            "needs one; from a thread, use asyncio.run_coroutine_threadsafe with the "
            "pool's loop."
        )

    def _take_no_more(self, engine: Engine) -> None:
        if self._state is _State.OPEN:
            self._state = _State.CLOSING
            self._listeners.tell(events.PoolDraining, pending=engine.stats().pending)

    async def _close_engine(self) -> None:
        if self._ending is None:
            self._state = _State.CLOSING
            self._ending = asyncio.ensure_future(self._end_engine())
        await _finish(self._ending)

    async def _end_engine(self) -> None:
        try:
            if self._engine is not None:
                await self._engine.close()
                _engines.discard(self._engine)
        finally:
            self._state = _State.CLOSED
            if self._keeper is not None:
                await self._keeper.aclose()
            self._listeners.tell(events.PoolClosed)

    def _jobs_ahead(self) -> int:
        """Return how many jobs `map` keeps going: enough for no worker to wait."""
        return 4 * self._options.max_workers + 4


def open_pools() -> list[Pool]:
    """Return the pools of the running loop that are not closed."""
    loop = asyncio.get_running_loop()
    return [
        pool
        for pool in _started
        if pool._loop is loop and pool._state is not _State.CLOSED
    ]


#: engines that were not closed yet, as far as somebody holds them
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
os.register_at_fork(after_in_child=_engines.clear)  # they are the parent's


async def _close_with_loop(whose: weakref.ref[Pool], engine: Engine) -> None:
    """Close, at the end of the loop, what nobody has closed while it ran."""
    pool = whose()
    if pool is None:  # it has said so when it was dropped
        await engine.close()
    elif pool._state is not _State.CLOSED:
        pool._keeper = None  # it is what calls this
        try:
            if not pool._ends_with_loop:
                pool._warn_unclosed()
        finally:
            await pool.close()


def _abandon_those_of_closed_loops() -> None:
    """End engines whose loop was closed without a word: it cannot be waited for."""
    for engine in list(_engines):
        if engine.loop.is_closed():
            _engines.discard(engine)
            engine.abandon()


_POOL_WORDS = (
    "max_workers",
    "engine",
    "max_pending",
    "max_pending_bytes",
    "arena_limit",
    "timeout",
    "run_timeout",
    "grace",
    "retries",
    "preload",
    "initializer",
    "initargs",
    "threads_per_worker",
    "env",
    "name",
    "recycle",
    "memory_limit",
    "min_workers",
    "idle_timeout",
    "spare_workers",
    "isolation",
    "sandbox",
)


_LATER = {
    "pin_cpus": "pinning to cores",
}


def _refuse_later(**given: object) -> None:
    """Refuse words that are reserved for a later version, rather than ignore them."""
    for word, value in given.items():
        if value is not None:
            raise UsageError(f"{word}: {_LATER[word]} is not part of this version")


async def _finish(task: asyncio.Task[None]) -> None:
    """Await to the end even when cancelled meanwhile, then let the cancellation go on.

    Half a close would leave processes behind.
    """
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.done():
            await asyncio.wait([task])
        raise
