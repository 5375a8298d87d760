"""Jobs to workers: whose turn it is, who gets it, and how many at a time.

    held (new in this turn) ─┐ alike, and nobody waits     ┌─▶ SendJobs
                             ├──────────────────────▶ send ┤
    queue ───────────────────┘                             └─▶ Settle (out of time)

Many jobs that come in one turn are sent together: then they share messages, and
deciding about them costs half of what it costs one by one. They see the queue only if
they have to wait, or if only the queue knows whose turn it is.

It settles jobs only that must not run when their turn comes: their time is over, or
their function is in quarantine.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from offloop.core.commands import Command, SendJobs
from offloop.core.credit import charge_of
from offloop.core.job import Ending, JobState

if TYPE_CHECKING:
    from offloop.core.credit import Roster, WorkerRecord
    from offloop.core.job import JobRecord
    from offloop.core.job_queue import Arrivals, JobQueue
    from offloop.core.ledger import Ledger
    from offloop.core.quarantine import Quarantine
    from offloop.core.runs import Runs

_SENT = JobState.SENT
_FAILED = JobState.FAILED

# Jobs that one look at the queue takes: as many as make a message worth its cost.
_LONGEST = 32


class Dispatch:
    """Sends jobs, as far as workers have room for them.

    Args:
        ledger: where jobs wait.
        roster: of the workers.
        runs: are watched from here on.
        quarantine: says which jobs must not be run.
    """

    __slots__ = (
        "_held",
        "_ledger",
        "_quarantine",
        "_queue",
        "_roster",
        "_runs",
        "_suspects",
    )

    def __init__(
        self, ledger: Ledger, roster: Roster, runs: Runs, quarantine: Quarantine
    ) -> None:
        self._ledger = ledger
        self._queue = ledger.queue
        self._held = ledger.held
        self._roster = roster
        self._runs = runs
        self._quarantine = quarantine
        #: its suspects, one look nearer: while there are none, nobody is judged
        self._suspects = quarantine.suspects

    def release(self, now: float, commands: list[Command]) -> None:
        """Send the new jobs that were held back; those that find no room are queued."""
        queue, held = self._queue, self._held
        if not held:
            return
        if self._suspects or not self._roster.room:
            self.queue_held(now, commands)
            self.send(now, commands)
        elif queue.waiting:
            first = queue.first(now)
            self.queue_held(now, commands)
            if queue.first(now) is not first:  # else the one that waits does so still
                self._send_from(queue, now, commands)
        elif held.mixed():
            self.queue_held(now, commands)
            self._send_from(queue, now, commands)
        else:
            self._send_from(held, now, commands)
            if held:
                self.queue_held(now, commands)

    def queue_held(self, now: float, commands: list[Command]) -> None:
        """Let the jobs that were held back wait for their turn like all others."""
        push = self._queue.push
        for job in self._held:
            if not (self._suspects and self._refuse(job, now, commands)):
                push(job)
        self._held.clear()

    def refuse_waiting(self, now: float, commands: list[Command]) -> None:
        """Settle all jobs that wait and must not be run."""
        self.queue_held(now, commands)
        for job in list(self._ledger.jobs.values()):
            before = job.state
            if before is not _SENT and self._refuse(job, now, commands):
                self._ledger.leave_wait(job, before, now)

    def _refuse(self, job: JobRecord, now: float, commands: list[Command]) -> bool:
        """Settle a job of a function that kills its workers, if it must not be run."""
        refusal = self._quarantine.refuses(job, now)
        if refusal is None:
            return False
        ending = Ending.QUARANTINED
        self._ledger.settle(job, _FAILED, ending, refusal, now, commands)
        return True

    def send(self, now: float, commands: list[Command]) -> None:
        """Send jobs from the queue."""
        if self._queue.waiting and self._roster.room:
            self._send_from(self._queue, now, commands)

    def _send_from(
        self, source: JobQueue | Arrivals, now: float, commands: list[Command]
    ) -> None:
        """Send waiting jobs while there is room for the one whose turn it is.

        It is never passed over: a short job from behind it would take the place that it
        waits for, again and again. Only one that waits for its function's limit steps
        aside.
        """
        roster, suspects = self._roster, self._suspects
        while roster.room and (waiting := source.waiting):
            job = source.first(now)
            terms = job.terms
            limit = terms.limit
            if (
                job.deadline <= now
                or (suspects and self._quarantine.refuses(job, now))
                or (limit is not None and limit.full)
            ):
                self._set_aside(job, source, now, commands)
                continue
            charge = charge_of(terms)
            worker = roster.pick(charge, now, waiting > roster.staff)
            if worker is None:
                break
            # Nobody gets more than an even share, so that none gets its second job
            # before all have their first.
            share = 1
            if (
                waiting > 1
                and charge < roster.window
                and limit is None
                and not suspects
            ):
                share = min(waiting // (roster.room + 1), _LONGEST)
                share = min(share, roster.max_credit - len(worker.inbox))
            if share > 1:
                jobs = self._fill(worker, source.upcoming(share), charge, now)
                source.drop(len(jobs))
            else:
                jobs = [job]
                self._put(worker, job, charge, now)
                source.pop_first()
                if limit is not None:
                    limit.sent += 1
                if suspects:
                    self._quarantine.sent(job)
            roster.file(worker)
            last = commands[-1] if commands else None
            if type(last) is SendJobs and last.worker == worker.number:
                last.jobs += jobs
            else:
                commands.append(SendJobs(worker.number, jobs))

    def _set_aside(
        self,
        job: JobRecord,
        source: JobQueue | Arrivals,
        now: float,
        commands: list[Command],
    ) -> None:
        """Settle a job that must not run any more, or park it below its limit."""
        limit = job.terms.limit
        if job.deadline <= now:
            self._ledger.settle(job, _FAILED, Ending.TIMEOUT, None, now, commands)
        elif not self._refuse(job, now, commands):
            assert limit is not None  # or the job would be sent
            source.pop_first()
            self._ledger.park(job, limit)
            return
        source.pop_first()
        if limit is not None:
            self._ledger.unpark(limit, now)

    def _put(
        self, worker: WorkerRecord, job: JobRecord, charge: float, now: float
    ) -> None:
        """Put one job into a worker's inbox, which has room for it."""
        job.state = _SENT  # as `move` would allow
        job.charge = charge
        job.worker = worker.number
        job.sent_at = now
        worker.load += charge
        inbox = worker.inbox
        if not inbox:
            worker.head_since = now
        inbox[job.id] = job
        if len(inbox) > 1 or job.terms.run_timeout != inf:
            self._runs.watch(worker)

    def _fill(
        self, worker: WorkerRecord, jobs: list[JobRecord], charge: float, now: float
    ) -> list[JobRecord]:
        """Put the first job into a worker's inbox, and the next ones as it has room.

        Args:
            worker: who gets them.
            jobs: in order; all of them are QUEUED.
            charge: of the first one.
            now: the time.

        Returns:
            Those that it got.
        """
        inbox, number, load = worker.inbox, worker.number, worker.load
        before = len(inbox)
        terms = jobs[0].terms
        bound, window = inf, self._roster.window  # the first one has been looked at
        for job in jobs:
            if job.terms is not terms:
                terms = job.terms
                if terms.limit is not None:
                    break
                charge = charge_of(terms)
            if load + charge > bound or job.deadline <= now:
                break
            job.state = _SENT  # as `move` would allow
            job.charge = charge
            job.worker = number
            job.sent_at = now
            inbox[job.id] = job
            load += charge
            bound = window
        worker.load = load
        if not before:
            worker.head_since = now
        held = len(inbox)
        if held > 1 or jobs[0].terms.run_timeout != inf:
            self._runs.watch(worker)
        got = held - before
        return jobs if got == len(jobs) else jobs[:got]
