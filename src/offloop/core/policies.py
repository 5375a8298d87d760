"""How long and how often: what the machines know of run times, delays and drain rates.

Functions of counts and times, and two small averages. Random numbers come in as `u`,
evenly spread in [0, 1): the machines make them with `spread` from numbers that they
have anyway, so that the same facts always lead to the same commands.

This module never decides about a job or a process.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# A function is unknown, and never shares an inbox, until it has run this often.
_KNOWN_AFTER = 8

# Seconds that a run may take by mere chance, because another process had its core: a
# turn of the system's scheduler. Whoever waits behind such a run hardly notices.
_BRIEF = 0.005

# The share by which a run below the peak pulls it down. Slow on purpose: one run in a
# hundred that is long must still be remembered when the next one comes.
_DECAY = 1 / 64

# Runs over which the average of brief ones is taken.
_MEMORY = 64

# Endings that are timed together: answers come in bursts, single gaps say nothing.
_BURST = 32

# Seconds that a chunk of items should run, so that asking for the next one (a tenth of
# a millisecond) costs little, and those for which making it may keep the caller's loop.
_CHUNK_TIME = 0.01
_LOOP_TIME = 0.0005

# A chunk has at most so many times the items of one that was measured.
_CHUNK_GROWTH = 8

_RETRY_BASE = 0.1
_RESTART_BASE = 0.1
_MAX_DELAY = 30.0

_MASK = (1 << 32) - 1


class RunTime:
    """What the next run of a function is likely to take.

    That is the average of its brief runs, or, if it had a long one, a high quantile
    that jumps up and sinks slowly: nobody should wait behind the next long one, but a
    brief one that lost its core for a moment must not make all others look long.

    Args:
        whole: that of the same function when it is called once, if this is of chunks.
    """

    __slots__ = (
        "_average",
        "_peak",
        "_whole",
        "chunks",
        "estimate",
        "samples",
        "streams",
    )

    def __init__(self, whole: RunTime | None = None) -> None:
        #: what this is the `chunks` of, if it is
        self._whole = whole
        #: the same for jobs that call the function with each item of a chunk
        self.chunks: RunTime | None = None
        #: the same for jobs that send its results one by one
        self.streams: OwnRun | None = None
        #: seconds that a run is likely to take; inf while too few have been seen
        self.estimate = inf
        #: runs seen
        self.samples = 0
        #: of the brief runs
        self._average = 0.0
        #: of the long ones; 0.0 when the last one is forgotten
        self._peak = 0.0

    @property
    def function(self) -> RunTime:
        """What stands for the function, whether called once or with a chunk."""
        return self._whole or self

    def observe(self, run_time: float) -> None:
        """Learn from a run that took `run_time` seconds."""
        self.observe_all((run_time,))

    def observe_all(self, run_times: Sequence[float]) -> None:
        """Learn from runs, in the order in which they were."""
        count = len(run_times)
        self.samples += count
        if self._peak or max(run_times) > _BRIEF:
            run_times = self._remember_long(run_times)
        if run_times:
            newer = sum(run_times) / len(run_times)
            weight = len(run_times) / min(self.samples, _MEMORY)
            self._average += (newer - self._average) * min(weight, 1.0)
            if self._peak < 2 * self._average:
                self._peak = 0.0  # forgotten: brief runs count as they are
        if self.samples >= _KNOWN_AFTER:
            self.estimate = self.likely

    @property
    def likely(self) -> float:
        """The estimate without its caution: of the runs that were seen."""
        return max(self._average, self._peak)

    def _remember_long(self, run_times: Sequence[float]) -> list[float]:
        """Let long runs lift the peak, and brief ones lower it; returns these."""
        peak, brief = self._peak, []
        for run_time in run_times:
            if run_time > peak and run_time > _BRIEF:
                peak = run_time
            else:
                peak -= (peak - run_time) * _DECAY
            if run_time <= _BRIEF:
                brief.append(run_time)
        self._peak = peak
        return brief


class OwnRun(RunTime):
    """For jobs that have a worker for themselves, however short they may be."""

    __slots__ = ()

    def observe_all(self, run_times: Sequence[float]) -> None:
        """Learn from runs, but never call the function short."""
        super().observe_all(run_times)
        self.estimate = inf


class ChunkSize:
    """How many items share a job: as many as run for a moment together.

    Begins with one, and follows what is measured: slower items count at once, faster
    ones little by little.
    """

    __slots__ = ("_limit", "_make", "_run", "items")

    def __init__(self, run_timeout: float = inf) -> None:
        #: items of the next chunk
        self.items = 1
        #: seconds that a chunk may run; a small part of the limit that it has as a job
        self._limit = min(_CHUNK_TIME, run_timeout / 10)
        #: seconds that an item runs, and that it takes the caller to read and encode it
        self._run = self._make = 0.0

    def ran(self, items: int, seconds: float) -> None:
        """Learn from a chunk that ran."""
        self._run = _follow(self._run, seconds / items)
        most = self._limit / max(self._run, 1e-9)
        if self._make:
            most = min(most, _LOOP_TIME / self._make)
        self.items = max(1, int(min(most, _CHUNK_GROWTH * items)))

    def made(self, items: int, seconds: float) -> None:
        """Learn what it took to make a chunk and hand it over."""
        self._make = _follow(self._make, seconds / items)


def _follow(estimate: float, value: float) -> float:
    return value if value > estimate else estimate + (value - estimate) / 4


class DrainRate:
    """How fast jobs have been ending lately, time without jobs left out."""

    __slots__ = ("_count", "_last", "_pace", "_since")

    def __init__(self) -> None:
        #: seconds per ending; None until one burst was timed
        self._pace: float | None = None
        #: endings since `_since`, fewer than _BURST
        self._count = 0
        #: when the current burst began, moved on by the idle time within it
        self._since = 0.0
        #: the latest ending
        self._last = 0.0

    def resumed(self, now: float) -> None:
        """Note that there is something to do again."""
        self._since += now - self._last
        self._last = now

    def ended(self, now: float, count: int = 1) -> None:
        """Note that `count` jobs ended."""
        self._last = now
        self._count += count
        if self._count >= _BURST:
            pace = (now - self._since) / self._count
            self._pace = pace if self._pace is None else (3 * self._pace + pace) / 4
            self._since = now
            self._count = 0

    def next_end(self, now: float) -> float | None:
        """Return the seconds in which the next job is likely to end, None if unknown.

        After a silence that is longer than usual, as long again.
        """
        pace = self._pace
        if pace is None:
            if not self._count:
                return None
            pace = (self._last - self._since) / self._count
        return max(pace, now - self._last)


def spread(first: int, second: int) -> float:
    """Return a number in [0, 1) that looks random and is the same for the same pair."""
    mixed = (first * 0x9E3779B1 + second * 0x85EBCA77 + 1) & _MASK
    mixed = ((mixed ^ mixed >> 15) * 0x2C1B3C6D) & _MASK
    mixed = ((mixed ^ mixed >> 12) * 0x297A2D39) & _MASK
    return (mixed ^ mixed >> 15) / (_MASK + 1)


def retry_delay(attempt: int, u: float) -> float:
    """Return the seconds to wait before a failed job runs again.

    Exponential, with full jitter: jobs that failed together, because what they all need
    was down, must not come back together.

    Args:
        attempt: runs that have failed so far, from 1.
        u: random number in [0, 1).
    """
    return _backoff(_RETRY_BASE, attempt - 1, u)


def restart_delay(failures: int, u: float) -> float:
    """Return the seconds to wait after a death, before a process is started again.

    Or before a job runs again that has killed its worker.

    Args:
        failures: deaths in a row; the first is mended at once.
        u: random number in [0, 1).
    """
    return 0.0 if failures <= 1 else _backoff(_RESTART_BASE, failures - 2, u)


def _backoff(base: float, doublings: int, u: float) -> float:
    # 2.0**1024 overflows; no base is so small that sixty doublings are not enough.
    return min(_MAX_DELAY, base * 2.0 ** min(doublings, 60)) * u
