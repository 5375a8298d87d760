"""What has become of the calls of each function: counts, and how long they took.

A `Tally` is what an engine counts in, for as long as its pool lives; `FunctionStats` is
what one looked like at one moment, and what users see. Nothing here knows jobs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from offloop.telemetry.durations import Durations

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["OTHERS", "FunctionStats", "Tallies", "Tally"]

#: the name under which functions are counted that come when there are `_MOST` already
OTHERS = "(others)"

# A program that makes functions without end has that many names; whoever collects
# metrics keeps a dozen series for each.
_MOST = 256


@dataclass(frozen=True, slots=True)
class FunctionStats:
    """What has become of the calls of one function since the start of the pool.

    A call that shares a run with others, as short items of `map` do, is part of one
    job, and jobs are counted. Durations are those of jobs that have ended by a result
    or by an exception of the function. Of short ones (under a millisecond), one in
    seventeen stands for all, after the first thousand.

    Attributes:
        completed: jobs that ended with a result.
        failed: jobs that ended with an error of the function or of its result, or that
            were not run because it has killed worker after worker.
        cancelled: jobs that were cancelled.
        timed_out: jobs that ended by timeout or run_timeout.
        lost: jobs that ended because their worker did.
        retried: further attempts that were made, or are to be made.
        refused: calls for which there was no room.
        slow: runs that took longer than the pool's `slow_job`.
        wait: from submission until the job left for a worker.
        run: in the function, decoding and encoding included.
        transfer: on the way there and back, the wait in the worker's inbox included.
    """

    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0
    lost: int = 0
    retried: int = 0
    refused: int = 0
    slow: int = 0
    wait: Durations = field(default_factory=Durations)
    run: Durations = field(default_factory=Durations)
    transfer: Durations = field(default_factory=Durations)

    def __add__(self, other: FunctionStats) -> FunctionStats:
        """Return the figures of both together."""
        names = [one.name for one in fields(self)]
        both = {name: getattr(self, name) + getattr(other, name) for name in names}
        return FunctionStats(**both)

    def as_dict(self) -> dict[str, Any]:
        """Return all figures by name, for JSON."""
        found: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            found[one.name] = value.as_dict() if isinstance(value, Durations) else value
        return found


class Tally:
    """Counts what becomes of the calls of one function.

    Each job of some length is counted as it is. Short ones come in thousands a second,
    and each has little to tell: one of several stands for all since the last.
    """

    __slots__ = (*(one.name for one in fields(FunctionStats)), "_latest", "since")

    completed: int
    failed: int
    cancelled: int
    timed_out: int
    lost: int
    retried: int
    refused: int
    slow: int
    wait: Durations
    run: Durations
    transfer: Durations

    def __init__(self) -> None:
        self.completed = self.failed = self.cancelled = self.timed_out = 0
        self.lost = self.retried = self.refused = self.slow = 0
        self.wait, self.run, self.transfer = Durations(), Durations(), Durations()
        #: short jobs since the last one that was asked; there was one if it is not 0
        self.since = 0
        #: what that one took
        self._latest = 0.0, 0.0, 0.0

    def took(self, wait: float, run: float, transfer: float) -> None:
        """Note how long a job waited, ran and travelled, in seconds."""
        self.wait.add(wait)
        self.run.add(run)
        self.transfer.add(transfer)

    def took_short(self, wait: float, run: float, transfer: float) -> None:
        """Note that of a short one, for all of `since`."""
        self._latest = wait, run, transfer
        self._settle()

    def _settle(self) -> None:
        for durations, seconds in zip(
            (self.wait, self.run, self.transfer), self._latest, strict=True
        ):
            durations.add(seconds, self.since)
        self.since = 0

    def stats(self) -> FunctionStats:
        """Return what is counted now."""
        if self.since:  # nobody was asked yet: the one before stands for them, too
            self._settle()
        names = [one.name for one in fields(FunctionStats)]
        found = {name: getattr(self, name) for name in names}
        for name in ("wait", "run", "transfer"):
            found[name] = found[name].copy()
        return FunctionStats(**found)


class Tallies:
    """Those of all functions of one pool, by name."""

    __slots__ = ("_by_name",)

    def __init__(self) -> None:
        self._by_name: dict[str, Tally] = {}

    def of(self, function: str) -> Tally:
        """Return the tally of a function, or that of others if there are many."""
        found = self._by_name.get(function)
        if found is None:
            name = function if len(self._by_name) < _MOST else OTHERS
            found = self._by_name.setdefault(name, Tally())
        return found

    def all(self) -> Iterable[Tally]:
        """Return all of them."""
        return self._by_name.values()

    def stats(self) -> dict[str, FunctionStats]:
        """Return what is counted now, by function."""
        return {name: tally.stats() for name, tally in self._by_name.items()}
