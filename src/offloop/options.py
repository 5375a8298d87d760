"""Every knob: its name, default, unit, limits, and one sentence.

Checked when given, so that a mistake is an error at the caller's line and not a
surprise in a worker. Times are seconds or timedelta, sizes are bytes or strings such as
"512MiB".
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from datetime import timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from offloop import machine

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

__all__ = [
    "ENGINES",
    "Batch",
    "JobOptions",
    "PoolOptions",
    "Recycle",
    "Seconds",
    "Size",
]

Seconds = float | timedelta
Size = int | str
OnFull = Literal["raise", "wait"]
OnCancel = Literal["stop", "kill", "finish"]

ENGINES = ("local", "inline", "thread", "shared", "dask", "ray")

# Words from other pools, and ours for the same thing.
_OTHER_WORDS = {
    "n_jobs": "max_workers",
    "processes": "max_workers",
    "workers": "max_workers",
    "num_workers": "max_workers",
    "max_queue": "max_pending",
    "concurrency": "max_concurrency",
    "fair_key": "key",
    "tenant": "key",
    "maxtasksperchild": "recycle=Recycle(max_jobs=...)",
    "max_tasks_per_child": "recycle=Recycle(max_jobs=...)",
    "max_tasks": "recycle=Recycle(max_jobs=...)",
    "mp_context": "nothing: workers are forked from a clean process of their own",
    "time_limit": "run_timeout",
    "task_timeout": "run_timeout",
    "deadline": "timeout",
    "max_retries": "retries",
}

_UNITS = {"": 1, "k": 1000, "m": 1000**2, "g": 1000**3, "t": 1000**4} | {
    f"{letter}i": 1024**power for power, letter in enumerate("kmgt", start=1)
}


class SingleWords(TypedDict, total=False):
    """The words of `JobOptions` but `batch`, each of which may be left out."""

    timeout: Seconds | None
    run_timeout: Seconds | None
    priority: int
    key: Hashable
    max_concurrency: int | None
    retries: int
    retry_on: type[BaseException] | Sequence[type[BaseException]]
    on_full: OnFull
    on_cancel: OnCancel
    single_flight: bool
    buffersize: int | None


class JobWords(SingleWords, total=False):
    """The words of `JobOptions`, each of which may be left out."""

    batch: Batch | None


class FunctionWords(SingleWords, total=False):
    """The words of `offload` but `batch`, each of which may be left out."""

    engine: str | None


class OffloadWords(FunctionWords, total=False):
    """The words of `offload`, each of which may be left out."""

    batch: Batch | None


@dataclass(frozen=True, slots=True)
class Batch:
    """How calls are gathered for a function that takes a list of items.

    Attributes:
        max_size: items that the function is called with at most.
        max_wait: seconds that an item waits for others.
    """

    max_size: int = 32
    max_wait: float = 0.005

    def __post_init__(self) -> None:
        whole("max_size", self.max_size, least=1)
        wait = seconds("max_wait", self.max_wait, least=0.0)
        object.__setattr__(self, "max_wait", wait)


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What can be said about one job, or about all jobs of a function.

    Attributes:
        timeout: seconds from submission to result; None: no limit.
        run_timeout: seconds from the start of the run; None: no limit.
        priority: higher runs first; jobs of equal priority run in order of submission.
        key: whose job it is, a tenant's name for instance: keys get equal shares of the
            workers' time, within a priority; None: one key like any other.
        max_concurrency: jobs of the same function that may be with workers at once;
            None: any number.
        retries: further attempts after a lost worker, or an error in `retry_on`.
        retry_on: exceptions of the function that are worth a further attempt.
        on_full: "wait" for room, or "raise" `PoolFull`, when the pool is full; `submit`
            cannot wait and always raises.
        on_cancel: what a cancellation does to a running job: "stop" interrupts it and
            kills it after the grace time, "kill" kills it at once, "finish" lets it end
            and drops its result.
        single_flight: calls of `run`, or of the decorated function, that are the same
            and made while one is going share its run and its result.
        batch: calls of `run`, or of the decorated function, are gathered, and the
            function is called with a list of items; None: it is called with each.
        buffersize: parts that the generator of a stream may be ahead of its consumer;
            None: 256, and never more than 32 MiB and one part.
    """

    timeout: float | None = None
    run_timeout: float | None = None
    priority: int = 0
    key: Hashable = None
    max_concurrency: int | None = None
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] = ()
    on_full: OnFull = "wait"
    on_cancel: OnCancel = "stop"
    single_flight: bool = False
    batch: Batch | None = None
    buffersize: int | None = None

    def __post_init__(self) -> None:
        for name in ("timeout", "run_timeout"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, seconds(name, value))
        whole("priority", self.priority, least=None)
        try:
            hash(self.key)
        except TypeError:  # here, and not when it is submitted
            raise TypeError(f"key takes what can be hashed, not {self.key!r}") from None
        if self.max_concurrency is not None:
            whole("max_concurrency", self.max_concurrency, least=1)
        whole("retries", self.retries, least=0)
        if isinstance(self.retry_on, type):
            object.__setattr__(self, "retry_on", (self.retry_on,))
        object.__setattr__(self, "retry_on", tuple(self.retry_on))
        for kind in self.retry_on:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise TypeError(f"retry_on takes exception types, not {kind!r}")
        one_of("on_full", self.on_full, ("raise", "wait"))
        one_of("on_cancel", self.on_cancel, ("stop", "kill", "finish"))
        if self.buffersize is not None:
            whole("buffersize", self.buffersize, least=1)
        if self.batch is not None and not isinstance(self.batch, Batch):
            raise TypeError(f"batch takes a Batch(...), not {self.batch!r}")
        if self.batch is not None and self.single_flight:
            raise ValueError("single_flight and batch exclude each other")

    def changed(self, changes: Mapping[str, Any]) -> JobOptions:
        """Return these options with `changes`.

        Raises:
            TypeError: for a word that is not an option.
            ValueError: for a value out of range.
        """
        refuse_unknown(changes, self.__slots__, "job option")
        return replace(self, **changes)


@dataclass(frozen=True, slots=True)
class Recycle:
    """When a worker is replaced by a fresh one, which is ready before the old one goes.

    Attributes:
        max_jobs: after so many jobs; None: never.
        max_age: after so many seconds; None: never.
        max_rss: when it holds more than so many bytes after a job, memory that it
            shares with others left out; None: never.
        jitter: share by which each limit is lowered at most, by chance, from worker to
            worker, so that they do not all leave together.
    """

    max_jobs: int | None = None
    max_age: Seconds | None = None
    max_rss: Size | None = None
    jitter: float = 0.1

    def __post_init__(self) -> None:
        if self.max_jobs is not None:
            whole("max_jobs", self.max_jobs, least=1)
        if self.max_age is not None:
            object.__setattr__(self, "max_age", seconds("max_age", self.max_age))
        if self.max_rss is not None:
            object.__setattr__(self, "max_rss", size("max_rss", self.max_rss))
        if not 0 <= self.jitter < 1:
            raise ValueError(
                f"jitter is a share from 0 to below 1, not {self.jitter!r}"
            )


# Less would not hold the arguments of a single ordinary job.
_LEAST_ARENA = 1 << 20


def _default_arena_limit() -> int:
    # As much again is for results; pages are taken when they are used, not before.
    return max(machine.memory_allowance() // 4, 1 << 20)


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """What a pool is made of; `Pool` documents each word."""

    max_workers: int = field(default_factory=machine.default_max_workers)
    engine: str = "local"
    max_pending: int | None = 100_000
    arena_limit: int = field(default_factory=_default_arena_limit)
    max_pending_bytes: int | None = None
    grace: float = 0.2
    preload: tuple[str, ...] = ()
    initializer: Callable[..., object] | None = None
    initargs: tuple[Any, ...] = ()
    threads_per_worker: int | None = 1
    env: Mapping[str, str] = field(default_factory=dict)
    name: str = "offloop"
    recycle: Recycle | None = None
    memory_limit: int | None = None
    min_workers: int | None = None
    idle_timeout: float | None = None
    spare_workers: int = 0
    isolation: Literal["process"] | None = None
    sandbox: bool = False
    slow_job: float | None = None
    control: bool = True
    forward_logs: bool = True
    capture_output: bool = False
    job: JobOptions = field(default_factory=JobOptions)

    def __post_init__(self) -> None:
        whole("max_workers", self.max_workers, least=1)
        if self.min_workers is not None:
            whole("min_workers", self.min_workers, least=0)
            if self.min_workers > self.max_workers:
                raise ValueError(
                    f"min_workers must be at most max_workers, which is "
                    f"{self.max_workers}, not {self.min_workers}"
                )
        if self.idle_timeout is not None:
            timeout = seconds("idle_timeout", self.idle_timeout)
            object.__setattr__(self, "idle_timeout", timeout)
        whole("spare_workers", self.spare_workers, least=0)
        if self.max_pending is not None:
            whole("max_pending", self.max_pending, least=1)
        object.__setattr__(self, "arena_limit", size("arena_limit", self.arena_limit))
        if self.arena_limit < _LEAST_ARENA:
            raise ValueError(f"arena_limit must be at least {_LEAST_ARENA} bytes")
        if self.max_pending_bytes is not None:
            limit = size("max_pending_bytes", self.max_pending_bytes)
            object.__setattr__(self, "max_pending_bytes", limit)
        object.__setattr__(self, "grace", seconds("grace", self.grace, least=0.0))
        if isinstance(self.preload, str):
            raise TypeError(
                f"preload takes a sequence of module names: preload=[{self.preload!r}]"
            )
        object.__setattr__(self, "preload", tuple(self.preload))
        object.__setattr__(self, "initargs", tuple(self.initargs))
        if self.initializer is not None and not callable(self.initializer):
            raise TypeError(f"initializer must be callable, not {self.initializer!r}")
        if self.threads_per_worker is not None:
            whole("threads_per_worker", self.threads_per_worker, least=1)
        if self.recycle is not None and not isinstance(self.recycle, Recycle):
            raise TypeError(f"recycle takes a Recycle(...), not {self.recycle!r}")
        self._check_isolation()
        if self.memory_limit is not None:
            limit = size("memory_limit", self.memory_limit)
            object.__setattr__(self, "memory_limit", limit)
        if self.slow_job is not None:
            object.__setattr__(self, "slow_job", seconds("slow_job", self.slow_job))
        for key, value in self.env.items():
            if not (isinstance(key, str) and isinstance(value, str)):
                raise TypeError(f"env maps str to str, not {key!r} to {value!r}")

    def _check_isolation(self) -> None:
        if self.isolation is not None:
            one_of("isolation", self.isolation, ("process",))
            one_job = replace(self.recycle or Recycle(), max_jobs=1)
            object.__setattr__(self, "recycle", one_job)
        if self.sandbox and self.isolation is None:
            raise ValueError(
                'sandbox=True needs isolation="process": rights that a worker has '
                "given up for one job are gone for all others"
            )
        if self.sandbox and self.engine in ("inline", "thread"):
            raise ValueError(
                f"sandbox=True cannot hold with engine {self.engine!r}, which runs "
                "jobs in this process"
            )

    @property
    def is_elastic(self) -> bool:
        """True for a pool whose size follows the work."""
        return self.min_workers is not None or self.idle_timeout is not None


def chosen_engine(engine: str) -> str:
    """Return the engine to use: OFFLOOP_ENGINE overrides the argument.

    But for threads: what is meant to run in this process, with objects that no other
    one could be sent, stays in it wherever the rest goes.

    Raises:
        ValueError: for an engine that does not exist.
    """
    asked = os.environ.get("OFFLOOP_ENGINE")
    if asked and (engine != "thread" or asked == "inline"):
        engine = asked
    one_of("engine", engine.partition("://")[0], ENGINES)
    return engine


def refuse_unknown(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    """Raise TypeError for the first word that is not known, naming the right one."""
    for word in given:
        if word not in known:
            right = _OTHER_WORDS.get(word)
            hint = f"; use {right}" if right else f"; there are: {', '.join(known)}"
            raise TypeError(f"{word!r} is no {what}{hint}")


def seconds(name: str, value: object, *, least: float | None = None) -> float:
    """Return a time in seconds; it must be above 0, or at least `least` if given."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} takes seconds or a timedelta, not {value!r}")
    number = float(value)
    if not isfinite(number) or (number <= 0 if least is None else number < least):
        bound = "above 0" if least is None else f"at least {least:g}"
        raise ValueError(f"{name} must be a number of seconds {bound}, not {value!r}")
    return number


def size(name: str, value: object) -> int:
    """Return a size in bytes from an int or a string such as "512MiB" or "2GB"."""
    if isinstance(value, str):
        text = value.strip().lower().removesuffix("b")
        digits = text.rstrip("kmgti").strip()
        unit = _UNITS.get(text[len(digits) :].strip())
        try:
            value = int(float(digits) * unit) if unit else None
        except (ValueError, OverflowError):  # no number, or "inf"
            value = None
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError(f'{name} takes bytes, or a text such as "512MiB"')
    return value


def whole(name: str, value: object, *, least: int | None) -> None:
    """Raise unless `value` is a whole number, at least `least` if given."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} takes a whole number, not {value!r}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")


def one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise ValueError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name} is one of {', '.join(allowed)}, not {value!r}")
