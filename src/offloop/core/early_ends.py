"""What ends a job that has no result: a cancellation, its time, its worker's death.

    waits for a worker or a retry ──▶ settled, and never sent
    in an inbox, not the oldest ────▶ settled, and recalled
    runs ───────────────────────────▶ settled, and its run is stopped
    its worker is lost ─────────────▶ queued again, or settled: it is to blame

A job is settled at once in each case; making its worker usable again is the business of
`runs`, behind the job's back. It never sends a job and never chooses a worker.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from offloop.core.job import Ending, JobState

if TYPE_CHECKING:
    from offloop.core.commands import Command
    from offloop.core.credit import WorkerRecord
    from offloop.core.job import JobRecord
    from offloop.core.ledger import Ledger
    from offloop.core.quarantine import Quarantine
    from offloop.core.runs import Runs

_SENT = JobState.SENT
_FAILED = JobState.FAILED
_CANCELLED = JobState.CANCELLED


class EarlyEnds:
    """Ends jobs before their time.

    Args:
        ledger: settles them, or queues them again.
        workers: every worker that is known, by number.
        runs: stops what runs.
        quarantine: is told who kills workers.
        max_kills: workers that a job may kill before it is called poison.
    """

    __slots__ = ("_ledger", "_max_kills", "_quarantine", "_runs", "_workers")

    def __init__(
        self,
        ledger: Ledger,
        workers: dict[int, WorkerRecord],
        runs: Runs,
        quarantine: Quarantine,
        max_kills: int,
    ) -> None:
        self._ledger = ledger
        self._workers = workers
        self._runs = runs
        self._quarantine = quarantine
        self._max_kills = max_kills

    def end(
        self,
        job: JobRecord,
        state: JobState,
        ending: Ending,
        now: float,
        commands: list[Command],
    ) -> None:
        """Settle a job that is still waiting or running, and see to it that it ends."""
        before = job.state
        if before is not _SENT:
            self._ledger.settle(job, state, ending, None, now, commands)
            self._ledger.leave_wait(job, before, now)
            return
        assert job.worker is not None  # as for every job that is SENT
        worker = self._workers[job.worker]
        runs = worker.head() is job
        job.attempts += runs
        self._ledger.settle(job, state, ending, None, now, commands)
        if runs:
            self._runs.stop_run(worker, job, now, commands)
        else:
            self._runs.recall(worker, [job.id], commands)

    def cancel_all(self, now: float, commands: list[Command]) -> None:
        """Cancel every pending job: first those that wait, so that none begins."""
        for job in list(self._ledger.jobs.values()):
            if job.state is not _SENT:
                self.end(job, _CANCELLED, Ending.CANCELLED, now, commands)
        for worker in self._workers.values():
            self._cancel_inbox(worker, now, commands)

    def _cancel_inbox(
        self, worker: WorkerRecord, now: float, commands: list[Command]
    ) -> None:
        """Cancel all jobs of one worker with one recall."""
        if not worker.inbox:
            return
        rest = worker.rest()
        for job_id in rest:
            job = worker.inbox[job_id]
            self._ledger.settle(job, _CANCELLED, Ending.CANCELLED, None, now, commands)
        self._runs.recall(worker, rest, commands)
        if worker.head().state is _SENT:
            self.end(worker.head(), _CANCELLED, Ending.CANCELLED, now, commands)

    def blame(
        self,
        job: JobRecord,
        worker: WorkerRecord,
        detail: Any,
        now: float,
        commands: list[Command],
    ) -> bool:
        """Charge the job that was running when its worker was lost.

        Returns:
            True if no job of its function must be run for now.
        """
        ledger = self._ledger
        job.attempts += 1
        refused = False
        if not worker.ending:  # else it was killed by us, for the job before this one
            job.kills += 1
            refused = self._quarantine.died(job, detail, now)
        if job.kills >= self._max_kills:
            ledger.settle(job, _FAILED, Ending.POISON, detail, now, commands)
        else:
            why = f"worker {worker.number} was lost while it ran"
            if refused or not ledger.retry(job, now, why, lost=True):
                ledger.settle(job, _FAILED, Ending.LOST, detail, now, commands)
        return refused

    def time_passed(self, now: float, commands: list[Command]) -> None:
        """Do what has fallen due: deadlines, retries, and looks at workers."""
        while (job_id := self._ledger.deadlines.pop_due(now)) is not None:
            job = self._ledger.jobs[job_id]
            self.end(job, _FAILED, Ending.TIMEOUT, now, commands)
        self._ledger.wake(now)
        while (number := self._runs.looks.pop_due(now)) is not None:
            self._look_at(self._workers[number], now, commands)

    def _look_at(
        self, worker: WorkerRecord, now: float, commands: list[Command]
    ) -> None:
        """Do what is due with a worker: kill it, stop its run, or relieve it."""
        runs = self._runs
        worker.look_at = inf
        if worker.kill_at <= now:
            runs.kill_overdue(worker, commands)
        elif worker.interrupt_at <= now:
            runs.insist(worker, commands)
        elif runs.look_due(worker) <= now:
            head = worker.head()
            over = worker.head_since + head.terms.run_timeout <= now
            if head.state is _SENT and over:
                self.end(head, _FAILED, Ending.RUN_TIMEOUT, now, commands)
            else:
                runs.relieve(worker, now, commands)
        runs.watch(worker)
