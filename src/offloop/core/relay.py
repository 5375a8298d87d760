"""A scheduler for jobs that somebody else schedules: all of them go to one peer.

    job_held   job_cancelled      ┌───────┐     SendJobs   RecallJobs
    jobs_finished   job_failed  ─▶│ Relay │─▶
    job_ended   jobs_returned     └───────┘     Settle   SettleResults
    peer_ready   peer_lost

A client of a shared pool keeps its own books with it: what is pending, what waits,
deadlines, retries after an error, and the one ending of each job. Which worker runs a
job, and when, is the business of the peer, the pool's coordinator. While the peer is
not there, or has no room, jobs wait here in their order.

An answer for a job that has ended meanwhile is dropped. It decides nothing about
workers, and like its base touches no socket and no clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from offloop.core.commands import RecallJobs, SendJobs, SettleResults
from offloop.core.dispatch import Dispatch
from offloop.core.early_ends import EarlyEnds
from offloop.core.job import Ending, JobState
from offloop.core.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from offloop.core.commands import Command
    from offloop.core.job import JobRecord

#: number of the peer in commands and facts
PEER = 0

_SENT = JobState.SENT
_FAILED = JobState.FAILED
_CANCELLED = JobState.CANCELLED

# Jobs that become one message: a longer one would keep the peer from beginning.
_LONGEST = 32


class _Passage(Dispatch):
    """Sends jobs to the peer, as far as it takes them."""

    __slots__ = ("open",)

    #: the peer is there, and takes jobs
    open: bool

    def release(self, now: float, commands: list[Command]) -> None:
        self.queue_held(now, commands)
        self.send(now, commands)

    def send(self, now: float, commands: list[Command]) -> None:
        if self.open:
            self.pass_on(self._queue.waiting, now, commands)

    def pass_on(self, most: int, now: float, commands: list[Command]) -> None:
        """Send jobs from the queue, as many as there are and may be."""
        queue = self._queue
        while most > 0 and queue.waiting:
            queue.first(now)
            jobs = queue.upcoming(min(most, _LONGEST))
            queue.drop(len(jobs))
            most -= len(jobs)
            for job in jobs:
                job.move(_SENT)
                job.sent_at = now
            last = commands[-1] if commands else None
            if isinstance(last, SendJobs) and len(last.jobs) + len(jobs) <= _LONGEST:
                last.jobs += jobs
            else:
                commands.append(SendJobs(PEER, jobs))


class _Ends(EarlyEnds):
    """Ends jobs early; the peer, who may have them, is told."""

    __slots__ = ()

    def end(
        self,
        job: JobRecord,
        state: JobState,
        ending: Ending,
        now: float,
        commands: list[Command],
    ) -> None:
        before = job.state
        self._ledger.settle(job, state, ending, None, now, commands)
        if before is _SENT:
            commands.append(RecallJobs(PEER, [job.id]))
        else:
            self._ledger.leave_wait(job, before, now)

    def cancel_all(self, now: float, commands: list[Command]) -> None:
        for job in list(self._ledger.jobs.values()):
            self.end(job, _CANCELLED, Ending.CANCELLED, now, commands)


class Relay(Scheduler):
    """Decides about the jobs of one client.

    Args:
        max_pending: jobs that may be pending at once; None for any number.
        max_pending_bytes: bytes of pending jobs from which no further job is taken;
            None for any number.
    """

    def __init__(
        self, *, max_pending: int | None = None, max_pending_bytes: int | None = None
    ) -> None:
        super().__init__(max_pending=max_pending, max_pending_bytes=max_pending_bytes)
        self._passage = _Passage(
            self._ledger, self._roster, self._runs, self._quarantine
        )
        self._passage.open = False
        self._dispatch = self._passage
        self._early = _Ends(
            self._ledger, self._workers, self._runs, self._quarantine, max_kills=0
        )

    @property
    def open(self) -> bool:
        """True while the peer is there, and takes jobs."""
        return self._passage.open

    def held(self, worker: int, job_id: int) -> JobRecord | None:
        """Return the job if it is with the peer, and somebody still waits for it."""
        job = self._jobs.get(job_id)
        return job if job is not None and job.state is _SENT else None

    # Facts about jobs

    def jobs_finished(
        self, worker: int, answers: Sequence[tuple[int, Any, float]], now: float
    ) -> list[Command]:
        """Settle jobs with their results: job, result and run time of each."""
        results: list[tuple[JobRecord, Any]] = []
        for job_id, result, run_time in answers:
            job = self.held(worker, job_id)
            if job is not None:
                job.run_time = run_time
                job.attempts += 1
                results.append((job, result))
        if not results:
            return []
        self._ledger.settle_results(results, now)
        return [SettleResults(results)]

    def job_failed(
        self,
        worker: int,
        job_id: int,
        error: Any,
        run_time: float,
        retryable: bool,
        now: float,
    ) -> list[Command]:
        """Try a job again whose function raised, or settle it with the error."""
        commands: list[Command] = []
        job = self.held(worker, job_id)
        if job is not None:
            job.run_time = run_time
            job.attempts += 1
            ledger = self._ledger
            if not (retryable and ledger.retry(job, now, "failed", lost=False)):
                ledger.settle(job, _FAILED, Ending.ERROR, error, now, commands)
        return commands

    def job_yielded(self, worker: int, job_id: int, now: float) -> list[Command]:
        """Never try a job again that has given a part of its result away."""
        job = self.held(worker, job_id)
        if job is not None:
            job.retried = job.terms.retries
        return []

    def job_ended(
        self, job_id: int, ending: Ending, detail: Any, now: float
    ) -> list[Command]:
        """Settle a job that the peer has ended: a lost worker, a limit, or poison."""
        commands: list[Command] = []
        job = self.held(PEER, job_id)
        if job is not None:
            state = _CANCELLED if ending is Ending.CANCELLED else _FAILED
            self._ledger.settle(job, state, ending, detail, now, commands)
        return commands

    def jobs_returned(
        self, worker: int, job_ids: Iterable[int], now: float
    ) -> list[Command]:
        """Queue jobs again that the peer has no room for; it takes none for now."""
        self._passage.open = False
        for job_id in job_ids:
            job = self.held(worker, job_id)
            if job is not None:
                self._ledger.requeued += 1
                self._ledger.requeue(job, now, "the coordinator had no room")
        return []

    def job_refused(self, job_id: int, error: Any, now: float) -> list[Command]:
        """Settle a job that waits here, with the error that it may not wait."""
        commands: list[Command] = []
        self._passage.queue_held(now, commands)
        job = self._jobs.get(job_id)
        if job is not None and job.state is not _SENT:
            before = job.state
            self._ledger.settle(job, _FAILED, Ending.ERROR, error, now, commands)
            self._ledger.leave_wait(job, before, now)
        return commands

    # Facts about the peer

    def peer_ready(self, now: float, room: int | None = None) -> list[Command]:
        """Send what waits: the peer is there.

        Args:
            now: the time.
            room: jobs that it takes; None: any number. If more wait, the rest does so
                until this is called again.
        """
        commands: list[Command] = []
        passage = self._passage
        waiting = self._queue.waiting + len(self._ledger.held)
        passage.queue_held(now, commands)
        passage.open = room is None or waiting <= room
        passage.pass_on(room or waiting, now, commands)
        return commands

    def peer_lost(self, detail: Any, now: float) -> list[Command]:
        """Settle what was with the peer; what waits here waits for its successor."""
        self._passage.open = False
        commands: list[Command] = []
        for job in list(self._jobs.values()):
            if job.state is _SENT:
                job.attempts += 1
                self._ledger.settle(job, _FAILED, Ending.LOST, detail, now, commands)
        return commands

    def check(self) -> None:
        """Assert every invariant; for tests."""
        self._ledger.check()
        assert not (self.open and self._queue.waiting), "the peer has room"
