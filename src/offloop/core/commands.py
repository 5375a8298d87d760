"""Everything that the scheduler and supervision may ask their shells to do.

Slotted, not frozen: a frozen dataclass costs up to three times as much to make, and
the scheduler makes up to two of these for each job. The shell carries them out in the
given order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offloop.core.exits import ExitReason
    from offloop.core.job import Ending, JobRecord


# The scheduler's: jobs, and workers as they run them


@dataclass(slots=True)
class SendJobs:
    """Put the jobs into the worker's inbox, in this order."""

    worker: int
    jobs: list[JobRecord]


@dataclass(slots=True)
class RecallJobs:
    """Take jobs back from the worker's inbox, those that it has not started yet.

    The worker answers with the numbers that it gave back: `jobs_returned`.
    """

    worker: int
    jobs: list[int]


@dataclass(slots=True)
class CloseJob:
    """Ask the job to end at its next resting place, which leaves its worker sound.

    An interrupt follows if it does not come to one.
    """

    worker: int
    job: int


@dataclass(slots=True)
class InterruptJob:
    """Raise JobInterrupted inside the job if the worker still runs it."""

    worker: int
    job: int


@dataclass(slots=True)
class KillWorker:
    """End the process at once; its death comes back as `worker_lost`.

    If it is `hung`, in a job that does not stop, people want to know where.
    """

    worker: int
    why: str
    reason: ExitReason
    hung: bool = False


@dataclass(slots=True)
class StopWorker:
    """Let the worker leave: it has no job, and gets none any more."""

    worker: int


@dataclass(slots=True)
class Settle:
    """Give the job its one ending; `detail` is what the fact brought along."""

    job: JobRecord
    ending: Ending
    detail: Any = None


@dataclass(slots=True)
class SettleResults:
    """Give jobs whose results came together their one ending, each its own detail."""

    results: list[tuple[JobRecord, Any]]


Command = (
    SendJobs
    | RecallJobs
    | CloseJob
    | InterruptJob
    | KillWorker
    | StopWorker
    | Settle
    | SettleResults
)


# Supervision's: processes, whatever they do


@dataclass(slots=True)
class StartChild:
    """Start a process for the slot; facts about it carry the number `child`.

    It stops by itself, and says so, after `max_jobs` jobs or above `max_rss` bytes; 0
    is no limit.
    """

    slot: int
    child: int
    max_jobs: int = 0
    max_rss: int = 0


@dataclass(slots=True)
class EmployChild:
    """Give work to a process that can work."""

    child: int


@dataclass(slots=True)
class RetireChild:
    """Let the process finish what it has, take nothing new, and then leave."""

    child: int
    reason: ExitReason


@dataclass(slots=True)
class TerminateChild:
    """Ask the process to leave now, whatever it does (SIGTERM)."""

    child: int
    reason: ExitReason


@dataclass(slots=True)
class KillChild:
    """End the process (SIGKILL); its death comes back as `child_exited`."""

    child: int
    reason: ExitReason


@dataclass(slots=True)
class GiveUp:
    """Fail whoever waits for the pool: its processes do not stay alive."""

    reason: str


SupervisionCommand = (
    StartChild | EmployChild | RetireChild | TerminateChild | KillChild | GiveUp
)
