"""What becomes of jobs, counted by function and told to whoever listens.

    results, endings, retries, refusals ─▶ Accounts ─┬─▶ tallies ─▶ `pool.stats()`
                                                     ├─▶ events
                                                     └─▶ spans, if there are any

It looks at a job when everything about it is decided, changes nothing of it, and gives
nobody a result. What that costs is part of what `make instructions` guards.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from offloop.core.job import Ending
from offloop.telemetry import events, spans
from offloop.telemetry.tallies import Tallies
from offloop.wire.functions import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from offloop.engines.call import Call
    from offloop.errors import PoolFull
    from offloop.telemetry.events import Listeners
    from offloop.telemetry.tallies import FunctionStats, Tally

# What is told of a job that ends in one of these ways, and where it is counted.
_TOLD = {
    Ending.ERROR: (events.JobFailed, "failed"),
    Ending.CANCELLED: (events.JobCancelled, "cancelled"),
    Ending.TIMEOUT: (events.JobTimedOut, "timed_out"),
    Ending.RUN_TIMEOUT: (events.JobTimedOut, "timed_out"),
    Ending.LOST: (events.JobLost, "lost"),
    Ending.POISON: (events.JobPoisoned, "lost"),
    Ending.QUARANTINED: (events.JobQuarantined, "failed"),
}

# Seconds below which a run is short: it is not worth the microseconds that counting it
# singly takes. All are counted so until this many of a function have ended.
_SHORT = 0.001
_FIRST = 1024

# Short ones of which one is asked how long it took. A power of two would be in step
# with what comes in bundles.
_ONE_OF = 17


class Accounts:
    """Those of one pool.

    Args:
        pool: its name.
        listeners: are told what happens to jobs.
        slow_job: seconds of a run above which it is told that it was slow; None: never.
    """

    __slots__ = ("_listeners", "_pool", "_short", "_slow", "_tallies")

    def __init__(self, pool: str, listeners: Listeners, slow_job: float | None) -> None:
        self._pool = pool
        self._listeners = listeners
        self._slow = inf if slow_job is None else slow_job
        self._tallies = Tallies()
        #: seconds below which a run is short, and certainly not slow
        self._short = min(_SHORT, self._slow)

    def of(self, function: str) -> Tally:
        """Return what the jobs of a function are counted in."""
        return self._tallies.of(function)

    def stats(self) -> dict[str, FunctionStats]:
        """Return what was counted so far, by function."""
        return self._tallies.stats()

    @property
    def refused(self) -> int:
        """Calls for which there was no room."""
        return sum(tally.refused for tally in self._tallies.all())

    # What happens to jobs

    def finished(self, results: Sequence[tuple[Any, Any]]) -> None:
        """Count jobs whose results came together, and tell of them.

        Args:
            results: a call, whose times are noted, and what is not looked at.
        """
        first = results[0][0]
        terms = first.terms
        tally = terms.tally
        short = self._short
        if len(results) == 1:
            all_short = first.run_time < short
        else:
            runs = [call.run_time for call, _ in results if call.terms is terms]
            all_short = len(runs) == len(results) and max(runs) < short
        if all_short and tally.completed >= _FIRST:
            tally.completed += len(results)
            tally.since += len(results)
            if tally.since >= _ONE_OF:
                asked = results[tally.completed % len(results)][0]
                tally.took_short(*_stages(asked))
        else:
            for call, _ in results:
                call.terms.tally.completed += 1
                self._took(call)
        if spans.is_in_use():
            for call, _ in results:
                self._trace(call)
        if events.JobFinished in self._listeners.heard:
            for call, _ in results:
                self._tell(events.JobFinished, call, **_times(call))

    def _took(self, call: Call) -> None:
        """Count how long a job took that has run, and tell of it if it was slow."""
        tally = call.terms.tally
        tally.took(*_stages(call))
        if call.run_time > self._slow:
            tally.slow += 1
            self._tell(events.JobSlow, call, **_times(call))

    def ended(
        self, call: Call, ending: Ending, error: BaseException | None = None
    ) -> None:
        """Count a job that has ended without a result, and tell of it.

        Args:
            call: the job, whose times are noted.
            ending: how it has ended.
            error: that its caller gets; may be None if it was cancelled, or if
                `wants_error` said so.
        """
        kind, name = _TOLD[ending]
        tally = call.terms.tally
        setattr(tally, name, getattr(tally, name) + 1)
        if ending is Ending.ERROR and call.sent_at:
            self._took(call)
        if spans.is_in_use():
            self._trace(call, ending, error)
        if kind in self._listeners.heard:
            more = {} if ending is Ending.CANCELLED else {"error": error}
            self._tell(kind, call, **more)

    def wants_error(self, ending: Ending) -> bool:
        """Tell whether somebody hears of such an ending, and so of its error."""
        return _TOLD[ending][0] in self._listeners.heard

    def retried(self, call: Call, reason: str) -> None:
        """Count a job whose run has failed and that goes on, and tell of it."""
        call.terms.tally.retried += 1
        if events.JobRetried in self._listeners.heard:
            self._tell(events.JobRetried, call, reason=reason)

    def refused_call(self, function: Callable[..., Any], full: PoolFull) -> None:
        """Count a call for which there is no room, and tell of it."""
        name = describe(function)
        self._tallies.of(name).refused += 1
        self._listeners.tell(
            events.JobRefused,
            function=name,
            pending=full.pending,
            limit=full.limit,
            retry_after=full.retry_after,
        )

    def _trace(
        self,
        call: Call,
        ending: Ending = Ending.RESULT,
        error: BaseException | None = None,
    ) -> None:
        """Show a job in its caller's trace, if there is one."""
        if not call.carried or not call.carried[1] or not call.returned_at:
            return
        stages = {}
        if call.sent_at:
            stages["queue"] = call.submitted_at, call.sent_at
        if call.started_at and call.run_time:
            stages["run"] = call.started_at, call.started_at + call.run_time
        told: dict[str, str | int] = {"offloop.pool": self._pool}
        told |= {"offloop.job": call.id, "offloop.attempts": call.attempts}
        if call.worker is not None:
            told["offloop.worker"] = call.worker
        if ending is not Ending.RESULT:
            told["offloop.ending"] = ending.value
        whole = call.submitted_at, call.returned_at
        name = call.function.name
        spans.record(call.carried[1], name, whole, stages, told, error)

    def _tell(self, kind: type[events.Event], call: Call, **more: Any) -> None:
        what = {"job": call.id, "function": call.function.name}
        what |= {"worker": call.worker, "attempts": call.attempts}
        self._listeners.tell(kind, **what, **more)


def _stages(call: Call) -> tuple[float, float, float]:
    """Return how long a job waited, ran and travelled."""
    sent_at, run_time = call.sent_at, call.run_time
    wait = sent_at - call.submitted_at
    return wait, run_time, call.returned_at - sent_at - run_time


def _times(call: Call) -> dict[str, float]:
    return {"queued": call.sent_at - call.submitted_at, "run": call.run_time}
