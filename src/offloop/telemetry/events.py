"""Every event that a pool tells of: one class each, with its fields, in one list.

    Supervisor, engines, Pool ──tell──▶ Listeners ──call_soon──▶ callbacks of `pool.on`
                                            └──────────────────▶ the logger "offloop"

An event is made only if somebody listens to it or its log level is enabled; callbacks
run in a later step of the event loop, so none of them can disturb what the pool is in
the middle of. Nothing here decides anything, or knows what the events are about.

`EVENTS` is the list; ``docs/events.md`` describes it, and a test compares the two.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "EVENTS",
    "Event",
    "JobCancelled",
    "JobFailed",
    "JobFinished",
    "JobLost",
    "JobPoisoned",
    "JobQuarantined",
    "JobRefused",
    "JobRetried",
    "JobSlow",
    "JobTimedOut",
    "Listeners",
    "LoopBlocked",
    "PoolClosed",
    "PoolDraining",
    "PoolGaveUp",
    "PoolOpened",
    "PoolRecovered",
    "PoolResized",
    "ReloadBegun",
    "ReloadDone",
    "ReloadFailed",
    "WorkerEnded",
    "WorkerReady",
    "WorkerRetiring",
    "WorkerStarted",
]

_log = logging.getLogger("offloop")

# Reasons for which a worker ends that nobody has asked for.
_UNASKED = ("crashed", "out-of-memory", "start-failed", "forkserver-lost")

E = TypeVar("E", bound="Event")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a pool.

    Attributes:
        pool: name of the pool.
        at: when it happened, in seconds since the epoch.
    """

    #: the highest level at which it is logged; 0: never
    level: ClassVar[int] = logging.DEBUG

    pool: str
    at: float

    @property
    def severity(self) -> int:
        """The level at which this one is logged."""
        return self.level

    def __str__(self) -> str:
        own = [one.name for one in fields(self) if one.name not in ("pool", "at")]
        told = [(name, getattr(self, name)) for name in own]
        said = ", ".join(f"{name} {_said(value)}" for name, value in told)
        what = name_of(type(self)).replace("_", " ")
        return f"pool {self.pool!r}: {what}" + (f": {said}" if said else "")


# Pools


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOpened(Event):
    """A pool begins to start its workers.

    Attributes:
        workers: that it may have at most.
    """

    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolDraining(Event):
    """A pool takes no more jobs, and waits for those that it has.

    Attributes:
        pending: jobs that have not ended.
    """

    pending: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolClosed(Event):
    """A pool has ended, and its workers with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolResized(Event):
    """A pool wants another number of workers.

    Attributes:
        before, after: the numbers.
        reason: "asked", "jobs waited" or "workers idled".
    """

    level = logging.INFO

    before: int
    after: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolGaveUp(Event):
    """Workers cannot be kept alive; the pool starts none for a while.

    Attributes:
        reason: in words.
        output: what the last one said, if anything.
    """

    level = logging.ERROR

    reason: str
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRecovered(Event):
    """A pool that had given up has a worker again, and fills all places."""

    level = logging.WARNING


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadBegun(Event):
    """New code is about to be tried."""

    level = logging.INFO


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadDone(Event):
    """All workers have the new code.

    Attributes:
        seconds: that it took.
    """

    level = logging.INFO

    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadFailed(Event):
    """New code was refused; the old one goes on.

    Attributes:
        error: why, in words.
    """

    level = logging.ERROR

    error: str


# Workers


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted(Event):
    """A worker was asked for.

    Attributes:
        worker: its number in the pool, never used again.
        slot: its place in the pool, which outlives it.
    """

    worker: int
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady(Event):
    """A worker can run jobs.

    Attributes:
        worker, slot: which one.
        pid: its process id.
        seconds: that its start took.
    """

    worker: int
    slot: int
    pid: int | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRetiring(Event):
    """A worker gets no more jobs, and leaves when it has done those that it has.

    Attributes:
        worker, slot, pid: which one.
        reason: a key of `PoolStats.exits`, such as "recycled-memory" or "reloaded".
    """

    worker: int
    slot: int
    pid: int | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnded(Event):
    """A worker's process is no more.

    Logged as a warning if nobody has asked for it and no job's error tells of it.

    Attributes:
        worker, slot, pid: which one.
        reason: a key of `PoolStats.exits`.
        exitcode: exit code, or None when a signal ended it.
        signal: name of the signal, or None.
        seconds: for which it could work; 0.0 if it never got ready.
        peak_rss: its largest resident memory in bytes, 0 if that is not known.
        blamed: a job that it ran is to blame, and has got an error that says more.
        output: the last that it wrote, with the traceback of a crash.
    """

    level = logging.WARNING

    worker: int
    slot: int
    pid: int | None
    reason: str
    exitcode: int | None
    signal: str | None
    seconds: float
    peak_rss: int
    blamed: bool
    output: str

    @property
    def severity(self) -> int:
        """The level at which this one is logged."""
        if self.reason not in _UNASKED:
            return logging.DEBUG
        return logging.INFO if self.blamed else logging.WARNING


# Jobs


@dataclass(frozen=True, slots=True, kw_only=True)
class _JobEvent(Event):
    level = 0

    job: int
    function: str
    worker: int | None
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFinished(_JobEvent):
    """A job has ended with a result.

    Attributes:
        job, function: which one.
        worker: number of the worker that had it last; None if none had.
        attempts: how many times it has run.
        queued: seconds from submission until it left for a worker.
        run: seconds in the function.
    """

    queued: float
    run: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailed(_JobEvent):
    """A job has ended with an exception of its function, or of its result.

    Attributes:
        job, function, worker, attempts: as of `JobFinished`.
        error: the exception that its caller gets.
    """

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCancelled(_JobEvent):
    """A job was cancelled.

    Attributes:
        job, function, worker, attempts: as of `JobFinished`.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class JobTimedOut(_JobEvent):
    """A job ran out of time.

    Attributes:
        job, function, worker, attempts: as of `JobFinished`.
        error: the `JobTimeout` that its caller gets.
    """

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class JobLost(_JobEvent):
    """A job ended because its worker did, or because there is none.

    Attributes:
        job, function, worker, attempts: as of `JobFinished`.
        error: the `WorkerLost`, `MemoryLimitExceeded` or other error of its caller.
    """

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPoisoned(_JobEvent):
    """A job has killed several workers, and is not tried again.

    Attributes:
        job, function, worker, attempts: as of `JobFinished`.
        error: the `PoisonJob` that its caller gets.
    """

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class JobQuarantined(_JobEvent):
    """A job was not run: its function has killed worker after worker of late.

    Attributes:
        job, function, worker, attempts: as of `JobFinished`.
        error: the `Quarantined` that its caller gets.
    """

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRetried(_JobEvent):
    """A run has failed or was lost, and the job will be tried again.

    Attributes:
        job, function, worker, attempts: as of `JobFinished`.
        reason: why, in words.
    """

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSlow(_JobEvent):
    """A run has taken longer than the pool's `slow_job`; its ending is told besides.

    Attributes:
        job, function, worker, attempts: as of `JobFinished`.
        queued: seconds from submission until it left for its worker.
        run: seconds in the function.
    """

    level = logging.WARNING

    queued: float
    run: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRefused(Event):
    """A call was refused because the pool is full; there is no job.

    Attributes:
        function: that was to be called.
        pending: jobs, or bytes, that there are.
        limit: how many there may be.
        retry_after: seconds until there may be room; None: nobody knows.
    """

    level = 0

    function: str
    pending: int
    limit: int
    retry_after: float | None


# Loops


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlocked(Event):
    """Something has held the pool's event loop, as `offloop.watch_loop` has seen.

    That logs it, once for all pools.

    Attributes:
        seconds: for which the loop stood still, at least.
        where: the line of the program that was running.
        callback: function or coroutine that the loop had called.
        task: name of its task; "" if it was a plain callback.
        stack: its frames, the latest call last.
    """

    level = 0

    seconds: float
    where: str
    callback: str
    task: str
    stack: str


#: all of them
EVENTS: tuple[type[Event], ...] = (
    PoolOpened,
    PoolDraining,
    PoolClosed,
    PoolResized,
    PoolGaveUp,
    PoolRecovered,
    ReloadBegun,
    ReloadDone,
    ReloadFailed,
    WorkerStarted,
    WorkerReady,
    WorkerRetiring,
    WorkerEnded,
    JobFinished,
    JobFailed,
    JobCancelled,
    JobTimedOut,
    JobLost,
    JobPoisoned,
    JobQuarantined,
    JobRetried,
    JobSlow,
    JobRefused,
    LoopBlocked,
)


def name_of(kind: type[Event]) -> str:
    """Return the name of an event in texts: "worker_ended" for `WorkerEnded`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


_BY_NAME = {name_of(kind): kind for kind in EVENTS}


def kinds_of(event: type[Event] | str) -> list[type[Event]]:
    """Return what an event's class or name stands for; `Event` for all.

    Raises:
        ValueError: there is no such event.
        TypeError: it is neither.
    """
    if isinstance(event, str):
        if event not in _BY_NAME:
            known = ", ".join(_BY_NAME)
            raise ValueError(f"there is no event {event!r}; there are: {known}")
        return [_BY_NAME[event]]
    if isinstance(event, type) and issubclass(event, Event):
        return [kind for kind in EVENTS if issubclass(kind, event)]
    raise TypeError(f"an event is one of the classes in {__name__}, not {event!r}")


class _Listener:
    """One callback, for as long as it is wanted."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[Any], object]) -> None:
        #: None once it is not wanted any more
        self.callback: Callable[[Any], object] | None = callback

    def hear(self, event: Event) -> None:
        if self.callback is not None:
            try:
                self.callback(event)
            except Exception:
                _log.exception("a callback for events failed with %s", event)


class Listeners:
    """Who wants to know what of one pool.

    Args:
        pool: its name.
    """

    __slots__ = ("_pool", "heard")

    def __init__(self, pool: str) -> None:
        self._pool = pool
        #: who listens to each event; those that nobody listens to are not in it
        self.heard: dict[type[Event], list[_Listener]] = {}

    def add(
        self, event: type[E] | str, callback: Callable[[E], object]
    ) -> Callable[[], None]:
        """Call `callback` with each such event; returns what ends that.

        Raises:
            ValueError: there is no such event.
            TypeError: the callback is a coroutine function, or cannot be called.
        """
        kinds = kinds_of(event)
        if inspect.iscoroutinefunction(callback) or not callable(callback):
            raise TypeError(
                f"a callback for events is a plain function, not {callback!r}; let it "
                "create a task for what takes longer"
            )
        listener = _Listener(callback)
        for kind in kinds:
            self.heard.setdefault(kind, []).append(listener)

        def remove() -> None:
            listener.callback = None
            for kind in kinds:
                left = [one for one in self.heard.get(kind, ()) if one is not listener]
                self.heard[kind] = left
                if not left:
                    del self.heard[kind]

        return remove

    def tell(self, kind: type[Event], **details: Any) -> None:
        """Tell of an event; whoever listens hears of it in a later step of the loop."""
        listeners = self.heard.get(kind)
        logged = kind.level and _log.isEnabledFor(kind.level)
        if not listeners and not logged:
            return
        event = kind(pool=self._pool, at=time.time(), **details)
        if logged and _log.isEnabledFor(event.severity):
            _log.log(event.severity, "%s", event, extra={"offloop_event": event})
        if listeners:
            loop = asyncio.get_running_loop()
            for listener in listeners:
                loop.call_soon(listener.hear, event)


def _said(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).rstrip()
