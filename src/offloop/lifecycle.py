"""The life of a pool: how it begins and ends, and where it may be used.

    NEW ── start ──▶ OPEN ── drain, stop, close, kill, ──▶ CLOSING ──▶ CLOSED
     │                       or the end of its loop                       ▲
     └── close ───────────────────────────────────────────────────────────┘

A pool belongs to the event loop in which it was started. It does nothing before that,
is not started twice, and leaves no engine behind: what nobody closes ends with its
loop. Jobs are nothing that it knows of.
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
from typing import TYPE_CHECKING, Self

from offloop.engines.choice import load_engine
from offloop.errors import PoolClosed, WrongLoop
from offloop.loop_end import at_loop_end
from offloop.operated import Operated
from offloop.options import Seconds, seconds
from offloop.telemetry import events
from offloop.telemetry.events import Listeners

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from types import TracebackType

    from offloop.engines.base import Engine
    from offloop.engines.figures import PoolStats
    from offloop.options import PoolOptions


class _State(enum.Enum):
    NEW = "was not started: use `async with pool:` or `await pool.start()`"
    OPEN = "is open"
    CLOSING = "is closing and takes no more jobs"
    CLOSED = "is closed"


_OPEN = _State.OPEN

# All that were started; those of other loops and those that are closed among them.
_started: weakref.WeakSet[Lifecycle] = weakref.WeakSet()

_running_loop = asyncio._get_running_loop  # None, not an error, when there is none


class Lifecycle:
    """What a pool is beside the calls that it takes.

    Args:
        options: of the pool.
    """

    def __init__(self, options: PoolOptions) -> None:
        self._options = options
        self._make_engine = load_engine(options.engine)
        self._make_engine.check(options)
        self._listeners = Listeners(options.name)
        #: ends the engine, once for all who ask for that; None before
        self._ending: asyncio.Task[None] | None = None
        #: drains it for `stop`; None while nobody has asked for that
        self._stopping: asyncio.Task[int] | None = None
        self._engine: Engine | None = None
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

    @property
    def is_new(self) -> bool:
        """True until the pool is started, or closed without that."""
        return self._state is _State.NEW

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

    async def aclose(self) -> None:
        """Do what `close` does, under the name that `contextlib.aclosing` calls."""
        await self.close()

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
                abandon_those_of_closed_loops()

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
        abandon_those_of_closed_loops()
        _engines.add(engine)
        self._engine = engine
        self._state = _State.OPEN
        _started.add(self)
        if self._options.control:
            drain = partial(_drain, weakref.ref(self))
            engine.operated = Operated(engine, self._options, self._listeners, drain)
        self._listeners.tell(events.PoolOpened, workers=self._options.max_workers)
        return engine

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
                if self._engine.operated is not None:
                    self._engine.operated.hang_up()
                await self._engine.close()
                if self._engine.operated is not None:
                    await self._engine.operated.close()
                _engines.discard(self._engine)
                _keep_stats(self._options.name, self._engine.stats())
        finally:
            self._state = _State.CLOSED
            if self._keeper is not None:
                await self._keeper.aclose()
            self._listeners.tell(events.PoolClosed)


def open_pools() -> list[Lifecycle]:
    """Return the pools of the running loop that are not closed."""
    loop = asyncio.get_running_loop()
    return [
        pool
        for pool in _started
        if pool._loop is loop and pool._state is not _State.CLOSED
    ]


def all_open() -> list[Lifecycle]:
    """Return the pools of this process that are not closed, whatever their loop."""
    return [
        pool
        for pool in list(_started)
        if pool._pid == os.getpid() and pool._state is not _State.CLOSED
    ]


# A program that names its pools without end is not followed further.
_MOST_NAMES = 256

#: what pools have counted that were closed, by name
_closed_stats: dict[str, PoolStats] = {}


def closed_stats() -> dict[str, PoolStats]:
    """Return what pools have counted that were closed, by their name.

    Those of one name are added up. Gauges among the figures are zero.
    """
    return dict(_closed_stats)


def _keep_stats(name: str, stats: PoolStats) -> None:
    stats = replace(stats, arena_used=0, arena_limit=0, failure="")
    if name in _closed_stats:
        stats = _closed_stats[name] + stats
    elif len(_closed_stats) >= _MOST_NAMES:
        return
    _closed_stats[name] = stats


#: engines that were not closed yet, as far as somebody holds them
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
os.register_at_fork(after_in_child=_engines.clear)  # they are the parent's


async def _close_with_loop(whose: weakref.ref[Lifecycle], engine: Engine) -> None:
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


async def _drain(whose: weakref.ref[Lifecycle]) -> None:
    """Drain a pool, unless nobody has it any more: then nothing new can come."""
    pool = whose()
    if pool is not None:
        await pool.drain()


def abandon_those_of_closed_loops() -> None:
    """End engines whose loop was closed without a word: it cannot be waited for."""
    for engine in list(_engines):
        if engine.loop.is_closed():
            _engines.discard(engine)
            if engine.operated is not None:
                engine.operated.hang_up()
            engine.abandon()


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
