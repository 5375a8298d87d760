"""Which functions are not run for now, because they kill worker after worker.

    free ──(deaths in a row)──▶ refused ──(time)──▶ on probation: one job runs
      ▲                            ▲                     │
      └───────── a job lived ──────┼─────────────────────┤
                                   └──── twice as long ──┘ it killed its worker

One job that kills is one thing: it ends as lost, or as poison. A function whose jobs do
nothing else would keep the pool busy with starting workers, and those of others would
wait. So after some deaths in a row, with no job of it that lived in between, its jobs
are refused for a while. Then a single job is tried: if it lives, whatever its result,
all is forgotten; if not, the next time is longer.

Deaths that the pool itself has brought about (limits, cancellation) do not count.

This module only judges; the scheduler settles jobs. A function that has killed nobody
costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from offloop.core.job import JobState

if TYPE_CHECKING:
    from offloop.core.job import JobRecord
    from offloop.core.policies import RunTime

# Deaths in a row; and seconds after which an earlier death is no part of a row.
_DEATHS = 5
_ROW = 60.0

# Seconds for which jobs are refused the first time, and at most.
_FIRST = 5.0
_LONGEST = 300.0


@dataclass(slots=True)
class Refusal:
    """Why a job is not run: the detail of its ending.

    Attributes:
        deaths: workers that the function has killed in a row.
        retry_after: seconds until a job of it is tried; 0.0 while one is.
        loss: the detail of the latest death.
    """

    deaths: int
    retry_after: float
    loss: Any


class _Suspect:
    """A function whose latest jobs have killed their workers."""

    __slots__ = ("deaths", "died_at", "loss", "probe", "term", "until")

    def __init__(self) -> None:
        #: workers that its jobs have killed, with none that lived in between
        self.deaths = 0
        #: when the latest one died
        self.died_at = 0.0
        #: the detail of that death
        self.loss: Any = None
        #: seconds for which its jobs are refused, if they are; 0.0: not yet
        self.term = 0.0
        #: until when they are
        self.until = 0.0
        #: the job that is tried after that; it counts while it is SENT
        self.probe: JobRecord | None = None


class Quarantine:
    """Judges functions, each known by its run time, by the deaths of workers."""

    __slots__ = ("suspects",)

    def __init__(self) -> None:
        #: functions that have killed a worker, and whose jobs have not lived since
        self.suspects: dict[RunTime, _Suspect] = {}

    def died(self, job: JobRecord, loss: Any, now: float) -> bool:
        """Note that a job killed its worker; True if its function is refused now."""
        suspect = self.suspects.setdefault(job.terms.cost.function, _Suspect())
        if not suspect.term and now - suspect.died_at > _ROW:
            suspect.deaths = 0
        suspect.deaths += 1
        suspect.died_at = now
        suspect.loss = loss
        # Those that were on their way when it began are no further offence.
        if suspect.deaths >= _DEATHS and (not suspect.term or suspect.probe is job):
            suspect.term = min(2 * suspect.term, _LONGEST) or _FIRST
            suspect.until = now + suspect.term
            suspect.probe = None
        return suspect.term > 0

    def lived(self, job: JobRecord) -> None:
        """Note that a job came to its end in a worker that survived it."""
        self.suspects.pop(job.terms.cost.function, None)

    def refuses(self, job: JobRecord, now: float) -> Refusal | None:
        """Tell whether a job that waits must not be sent now."""
        suspect = self.suspects.get(job.terms.cost.function)
        if suspect is None or not suspect.term:
            return None
        probe = suspect.probe
        tried = probe is not None and probe.state is JobState.SENT
        if now >= suspect.until and not tried:
            return None
        return Refusal(suspect.deaths, max(suspect.until - now, 0.0), suspect.loss)

    def sent(self, job: JobRecord) -> None:
        """Note that a job was sent; of a function on probation it is the one."""
        suspect = self.suspects.get(job.terms.cost.function)
        if suspect is not None and suspect.term:
            suspect.probe = job

    def check(self) -> None:
        """Assert the invariants."""
        for suspect in self.suspects.values():
            assert suspect.deaths > 0
            assert (suspect.term > 0) == (suspect.deaths >= _DEATHS)
            assert suspect.until <= suspect.died_at + _LONGEST
