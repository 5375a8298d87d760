"""What happens to the job that a worker runs, once it must not or should not run on.

    CloseJob ──────▶ closed: the worker answers for the job, and is usable again
         │ half the grace
    InterruptJob ──▶ stopped: the worker says so and leaves
         │      └──▶ missed, or swallowed: it answers for the job, and is usable again
         └─ grace ─▶ KillWorker

Only a job that rests now and then, as a generator does in its ``yield``, is asked to
close first.

A run that lasts while other jobs wait behind it is left alone, but they are taken
back. For that, and for limits and grace, each worker has one time at which it is looked
at again.

This module ends runs and workers; it never ends a job, and never chooses a worker for
one.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from offloop.core.commands import (
    CloseJob,
    Command,
    InterruptJob,
    KillWorker,
    RecallJobs,
    StopWorker,
)
from offloop.core.exits import ExitReason
from offloop.core.job import JobState
from offloop.core.timers import Timers

if TYPE_CHECKING:
    from offloop.core.credit import Roster, WorkerRecord
    from offloop.core.job import JobRecord

# The share of the grace that a job gets to close before it is interrupted.
_TO_CLOSE = 0.5


class Runs:
    """Stops runs and relieves inboxes.

    Args:
        roster: where a worker is closed while it should get no jobs.
        grace: seconds between an interrupt and the kill.
        leave_time: seconds that a worker has to leave in, before it is killed.
    """

    __slots__ = ("_grace", "_leave_time", "_roster", "looks")

    def __init__(self, roster: Roster, grace: float, leave_time: float) -> None:
        self._roster = roster
        self._grace = grace
        self._leave_time = leave_time
        #: when to look at a worker, by its number; the same as its `look_at`
        self.looks = Timers()

    def stop_run(
        self, worker: WorkerRecord, job: JobRecord, now: float, commands: list[Command]
    ) -> None:
        """Stop the job that runs, which was settled a moment ago."""
        if job.state is JobState.CANCELLED and job.terms.on_cancel == "kill":
            why = f"job {job.id} was cancelled"
            self.kill(worker, why, ExitReason.CANCELLED, commands)
        else:
            self.interrupt(worker, job, now, commands)

    def interrupt(
        self, worker: WorkerRecord, job: JobRecord, now: float, commands: list[Command]
    ) -> None:
        """Ask the job that runs, and is unwanted, to stop, unless it may finish."""
        finish = job.state is JobState.CANCELLED and job.terms.on_cancel == "finish"
        if finish or worker.ending:
            return
        worker.interrupted = job.id
        self._roster.close(worker)
        if job.closes:
            commands.append(CloseJob(worker.number, job.id))
            worker.interrupt_at = now + self._grace * _TO_CLOSE
        else:
            commands.append(InterruptJob(worker.number, job.id))
        # Those behind it must not begin, or the kill could hit one of them.
        self.recall_rest(worker, commands)
        self.kill_later(worker, now + self._grace)

    def insist(self, worker: WorkerRecord, commands: list[Command]) -> None:
        """Interrupt the job that was asked to close, and has not."""
        worker.interrupt_at = inf
        assert worker.interrupted is not None  # else there would be no such time
        commands.append(InterruptJob(worker.number, worker.interrupted))

    def recall(
        self, worker: WorkerRecord, job_ids: list[int], commands: list[Command]
    ) -> None:
        """Take jobs back, unless there are none, or all come back anyway."""
        if job_ids and not worker.ending:
            commands.append(RecallJobs(worker.number, job_ids))

    def recall_rest(self, worker: WorkerRecord, commands: list[Command]) -> None:
        """Take back what waits behind the oldest job, once for each oldest job."""
        if not worker.recalled:
            worker.recalled = True
            self.recall(worker, worker.rest(), commands)

    def relieve(
        self, worker: WorkerRecord, now: float, commands: list[Command]
    ) -> None:
        """Let the jobs go elsewhere that wait behind one that takes unusually long."""
        # Learnt before its end: the next jobs of this function may be due until then.
        worker.head().terms.cost.observe(now - worker.head_since)
        worker.slow = True
        self._roster.close(worker)
        self.recall_rest(worker, commands)

    def go_on(
        self, worker: WorkerRecord, left: int, now: float, commands: list[Command]
    ) -> None:
        """See what the worker does next, after its oldest job, `left`, is gone."""
        worker.head_since = now
        if worker.closed:
            self._reconsider(worker, left, now, commands)
        if not worker.inbox:
            return
        head = worker.head()
        if head.state is not JobState.SENT:  # it began before its recall came
            self.interrupt(worker, head, now, commands)
        if (
            worker.look_at > now + self._roster.patience
            or head.terms.run_timeout != inf
        ):
            self.watch(worker)

    def _reconsider(
        self, worker: WorkerRecord, left: int, now: float, commands: list[Command]
    ) -> None:
        """Let a closed worker get jobs again, if the reason was the job that left."""
        worker.slow = worker.recalled = False
        if worker.interrupted == left:
            worker.interrupted = None
            worker.interrupt_at = worker.kill_at = inf
        if worker.ending:
            return
        if not worker.retiring:
            self._roster.open(worker)
        elif not worker.inbox:
            self.stop(worker, now, commands)

    # Ends of workers

    def stop(self, worker: WorkerRecord, now: float, commands: list[Command]) -> None:
        """Send a worker away that has no job."""
        worker.ending = True
        self.kill_later(worker, now + self._leave_time)
        commands.append(StopWorker(worker.number))

    def kill(
        self,
        worker: WorkerRecord,
        why: str,
        reason: ExitReason,
        commands: list[Command],
        *,
        hung: bool = False,
    ) -> None:
        """End the worker's process; the jobs in its inbox come back when it is lost."""
        worker.ending = True
        worker.interrupt_at = worker.kill_at = inf
        self._roster.close(worker)
        commands.append(KillWorker(worker.number, why, reason, hung))

    def kill_overdue(self, worker: WorkerRecord, commands: list[Command]) -> None:
        """End a worker whose grace is over, or that does not leave."""
        if worker.interrupted is None:
            why = f"it did not leave within {self._leave_time:g} s"
            reason = ExitReason.SHUTDOWN
        else:
            job = worker.inbox[worker.interrupted]
            cancelled = job.state is JobState.CANCELLED
            reason = ExitReason.CANCELLED if cancelled else ExitReason.TIMED_OUT
            what = "was cancelled" if cancelled else "ran out of time"
            why = f"job {job.id} {what} and did not stop within {self._grace:g} s"
        hung = worker.interrupted is not None
        self.kill(worker, why, reason, commands, hung=hung)

    def leave(self, worker: WorkerRecord, now: float) -> None:
        """Note that a worker has stopped its job and is on its way out."""
        worker.interrupted = None
        worker.interrupt_at = inf
        worker.ending = True
        self._roster.close(worker)
        # Leaving may hang as well, in an atexit function or a thread of the user's.
        self.kill_later(worker, now + self._leave_time)

    def kill_later(self, worker: WorkerRecord, when: float) -> None:
        """Kill the worker if it is still there by then."""
        worker.kill_at = when
        self.watch(worker)

    # Times

    def watch(self, worker: WorkerRecord) -> None:
        """See to it that the worker is looked at in time.

        A look that was set is never put off: short jobs would do that every few
        microseconds. It comes too early then, finds nothing, and sets the next one.
        """
        due = self.look_due(worker)
        if due < worker.look_at:
            worker.look_at = due
            self.looks.set(worker.number, due)

    def look_due(self, worker: WorkerRecord) -> float:
        """Return when something must be done with the worker if nothing happens."""
        due = min(worker.interrupt_at, worker.kill_at)
        if worker.inbox and not worker.ending:
            head = worker.head()
            if head.state is JobState.SENT:
                due = min(due, worker.head_since + head.terms.run_timeout)
            if len(worker.inbox) > 1 and not worker.recalled:
                due = min(due, worker.head_since + self._roster.patience)
        return due

    def check(self, workers: dict[int, WorkerRecord]) -> None:
        """Assert the invariants; `workers` are all that are known."""
        self.looks.check()
        watched = {number for number, one in workers.items() if one.look_at != inf}
        assert set(self.looks) == watched
        for worker in workers.values():
            self._check_worker(worker)

    def _check_worker(self, worker: WorkerRecord) -> None:
        interrupted = worker.interrupted
        waits = worker.slow or worker.retiring or worker.ending
        assert worker.closed == (waits or interrupted is not None)
        assert worker.look_at <= self.look_due(worker)
        assert worker.inbox or worker.ending or not worker.retiring
        if interrupted is not None:
            assert worker.head().id == interrupted
            assert worker.head().state is not JobState.SENT
            assert worker.kill_at != inf or worker.ending
        if worker.interrupt_at != inf:
            assert interrupted is not None
            assert worker.interrupt_at <= worker.kill_at
