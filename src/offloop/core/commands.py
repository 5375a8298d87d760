"""Everything that the scheduler may ask its shell to do.

Slotted, not frozen: a frozen dataclass costs up to three times as much to make, and the
scheduler makes two of these for each job. The shell carries them out in the given order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from offloop.core.job import Ending, JobRecord


@dataclass(slots=True)
class SendJob:
    """Put the job into the worker's inbox."""

    worker: int
    job: JobRecord


@dataclass(slots=True)
class RecallJobs:
    """Take jobs back from the worker's inbox, those that it has not started yet.

    The worker answers with the numbers that it gave back: `jobs_returned`.
    """

    worker: int
    jobs: list[int]


@dataclass(slots=True)
class InterruptJob:
    """Raise JobInterrupted inside the job if the worker still runs it."""

    worker: int
    job: int


@dataclass(slots=True)
class KillWorker:
    """End the process at once; its death comes back as `worker_lost`."""

    worker: int
    reason: str


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


Command = SendJob | RecallJobs | InterruptJob | KillWorker | StopWorker | Settle
