"""What has happened in a pool of late, for those who watch it: events, and the lag.

Workers and pools have few events, which are always kept; those of jobs, and how late
the loop is, only while somebody looks. So a pool that nobody watches pays for nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from offloop.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Callable

    from offloop.telemetry.events import Event, Listeners

# Events that are kept, and those that are written down in one second; a text is cut.
_KEPT = 100
_EACH_SECOND = 50
_LONGEST_TEXT = 400

# Seconds between two beats, without a look until nobody is watching, and of lag kept.
_BEAT = 0.05
_PATIENCE = 5.0
_SECONDS = 60

# There is one for each job.
_TOO_MANY = (events.JobFinished,)

_OF_JOBS = tuple(
    kind
    for kind in events.EVENTS
    if kind.__name__.startswith("Job") and kind not in _TOO_MANY
)
_RARE = tuple(
    kind for kind in events.EVENTS if kind not in _OF_JOBS and kind not in _TOO_MANY
)


class Recent:
    """Keeps what a pool tells of itself, for the running loop.

    Args:
        listeners: of the pool.
        pool: its name.
    """

    def __init__(self, listeners: Listeners, pool: str) -> None:
        self._listeners = listeners
        self._prefix = f"pool {pool!r}: "
        self._loop = asyncio.get_running_loop()
        #: number of the latest event, and all that are kept
        self._number = 0
        self._events: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        #: how many were written down in which second
        self._second, self._written = 0, 0
        #: end the listening: for good, and to what is heard while somebody looks
        self._forget = [listeners.add(kind, self._hear) for kind in _RARE]
        self._forget_jobs: list[Callable[[], None]] = []
        #: largest lag of each second, oldest first, and the latest of those seconds
        self._lags: deque[float] = deque(maxlen=_SECONDS)
        self._lag_second = 0
        self._due = 0.0
        self._looked_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def look(self, since: int) -> dict[str, Any]:
        """Return what is kept: events after one of them, and the lag of each second.

        Args:
            since: number of the last event that is known already; 0: none.
        """
        self._looked_at = self._loop.time()
        if self._timer is None:
            self._forget_jobs = [
                self._listeners.add(kind, self._hear) for kind in _OF_JOBS
            ]
            self._beat_later()
        return {
            "events": [one for one in self._events if one["number"] > since],
            "lag": [round(lag, 6) for lag in self._lags],
        }

    def close(self) -> None:
        """Listen no more."""
        for forget in self._forget:
            forget()
        self._rest()

    def _rest(self) -> None:
        for forget in self._forget_jobs:
            forget()
        self._forget_jobs = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # Events

    def _hear(self, event: Event) -> None:
        second = int(event.at)
        if second != self._second:
            self._second, self._written = second, 0
        self._written += 1
        self._number += 1
        if self._written > _EACH_SECOND:  # thousands of jobs may fail in a second
            return
        text = _brief(event) or str(event).removeprefix(self._prefix)
        self._events.append(
            {
                "number": self._number,
                "at": event.at,
                "event": events.name_of(type(event)),
                "level": event.severity,
                "text": text.partition("\n")[0][:_LONGEST_TEXT],
            }
        )

    # The lag

    def _beat_later(self) -> None:
        self._due = self._loop.time() + _BEAT
        self._timer = self._loop.call_at(self._due, self._beat)

    def _beat(self) -> None:
        now = self._loop.time()
        late = max(now - self._due, 0.0)
        second = int(time.monotonic())
        if second != self._lag_second or not self._lags:
            self._lag_second = second
            self._lags.append(late)
        elif late > self._lags[-1]:
            self._lags[-1] = late
        if now - self._looked_at > _PATIENCE:
            self._rest()
        else:
            self._beat_later()


def _brief(event: Event) -> str:
    """Return what an event of a job tells, in few words; "" for other events."""
    told: Any = event
    if not hasattr(told, "job"):
        return ""
    what = events.name_of(type(event)).replace("_", " ")
    text = f"{what}: {told.function} #{told.job}"
    for word in ("error", "reason"):
        if hasattr(told, word):
            return f"{text}: {getattr(told, word)}"
    return f"{text}: it ran for {told.run:.3g} s" if hasattr(told, "run") else text
