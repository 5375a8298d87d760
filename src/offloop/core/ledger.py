"""Every job from its submission to its one ending, wherever it is in between.

    add ──▶ queue ──(sent)──▶ ... ──▶ settle
            │ ▲ ▲              │
       park │ │ ├─── requeue ◀─┤
            ▼ │ └─── delays  ◀─┘ retry
            limit of its function

The ledger keeps the pending jobs, the queue of those that may be sent, the times of
those that must wait or must end, and the counts. It does not know workers: a job that
is SENT is here by number only. It decides nothing but whether a failed job may be tried
again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from offloop.core.commands import Command, Settle
from offloop.core.job import Ending, JobState, told
from offloop.core.job_queue import Arrivals, JobQueue
from offloop.core.policies import DrainRate, restart_delay, retry_delay, spread
from offloop.core.timers import Timers

if TYPE_CHECKING:
    from offloop.core.job import Facts, JobRecord
    from offloop.core.limits import ConcurrencyLimit

# Stories of this many jobs are kept after their ending, if there was something to tell.
_STORIES = 256

_DONE = JobState.DONE
_RESULT = Ending.RESULT


@dataclass(frozen=True, slots=True)
class SchedulerStats:
    """What the scheduler holds now, and what it has seen since it was made.

    Attributes:
        queued, delayed, sent: pending jobs that wait for a worker, wait for a retry, or
            are with a worker.
        parked: those of the queued that wait for the limit of their function.
        size: bytes of the pending jobs, where they are counted.
        workers, idle_workers: known workers, and those that have no job and may get
            one.
        submitted: jobs accepted.
        completed, failed, cancelled, timed_out, lost, poisoned: jobs by their ending;
            those that were refused have failed.
        retried: runs that failed or were lost and will be tried again.
        requeued: jobs that came back from a worker without having begun.
    """

    queued: int
    parked: int
    delayed: int
    sent: int
    size: int
    workers: int
    idle_workers: int
    submitted: int
    completed: int
    failed: int
    cancelled: int
    timed_out: int
    lost: int
    poisoned: int
    retried: int
    requeued: int


class Ledger:
    """Holds the jobs that have not ended, and counts those that have."""

    __slots__ = (
        "deadlines",
        "delays",
        "drain",
        "endings",
        "held",
        "jobs",
        "parked",
        "queue",
        "requeued",
        "retried",
        "size",
        "stories",
    )

    def __init__(self) -> None:
        #: every job that has not been settled, by number
        self.jobs: dict[int, JobRecord] = {}
        #: those of them that are QUEUED, but for those in `held` or parked
        self.queue = JobQueue()
        #: new jobs, QUEUED too, which are not in the queue yet
        self.held = Arrivals()
        #: number of jobs, QUEUED too, that wait for the limit of their function
        self.parked = 0
        #: bytes of the pending jobs
        self.size = 0
        #: deadline of each pending job that has one
        self.deadlines = Timers()
        #: when a DELAYED job may run again; exactly the DELAYED jobs
        self.delays = Timers()
        #: how fast jobs have been ending
        self.drain = DrainRate()
        #: runs that failed or were lost, and whose job was to be tried again
        self.retried = 0
        #: jobs that came back from a worker without having begun
        self.requeued = 0
        #: settled jobs by ending
        self.endings = dict.fromkeys(Ending, 0)
        #: what stories are made of, and the ending, of jobs that have ended in an
        #: unusual way, the latest ones
        self.stories: deque[tuple[Facts, Ending]] = deque(maxlen=_STORIES)

    def add(self, job: JobRecord, now: float) -> None:
        """Note a new job; it is held back until it is sent, or enters the queue."""
        if not self.jobs:
            self.drain.resumed(now)
        self.jobs[job.id] = job
        job.submitted_at = now
        if job.size:
            self.size += job.size
        if job.deadline != inf:
            self.deadlines.set(job.id, job.deadline)
        self.held.append(job)

    def settle(
        self,
        job: JobRecord,
        state: JobState,
        ending: Ending,
        detail: Any,
        now: float,
        commands: list[Command],
    ) -> None:
        """End a job without a result. Whoever else holds it is told by the caller."""
        job.move(state)
        del self.jobs[job.id]
        job.returned_at = now
        if job.deadline != inf:
            self.deadlines.drop(job.id)
        self.size -= job.size
        self.endings[ending] += 1
        self.drain.ended(now)
        self._keep_story(job, ending)
        commands.append(Settle(job, ending, detail))

    def settle_results(self, results: list[tuple[JobRecord, Any]], now: float) -> None:
        """Settle jobs whose results came together; the caller makes the command."""
        jobs = self.jobs
        for job, _ in results:
            job.state = _DONE  # they were SENT
            del jobs[job.id]
            job.returned_at = now
            if job.deadline != inf:
                self.deadlines.drop(job.id)
            if job.history is not None:
                self._keep_story(job, _RESULT)
        if self.size:
            self.size -= sum(job.size for job, _ in results)
        self.endings[_RESULT] += len(results)
        self.drain.ended(now, len(results))

    def leave_wait(self, job: JobRecord, before: JobState, now: float) -> None:
        """Take a job that was just settled out of where it waited in state `before`."""
        limit = job.terms.limit
        if before is JobState.DELAYED:
            self.delays.drop(job.id)
        elif limit is not None and job.id in limit.parked:
            limit.held.discard(job)
            limit.parked.remove(job.id)
            self.parked -= 1
        else:
            self.queue.discard(job)
            if limit is not None:
                self.unpark(limit, now)

    def park(self, job: JobRecord, limit: ConcurrencyLimit) -> None:
        """Set a job aside whose function has as many jobs with workers as it may."""
        limit.held.push_front(job)
        limit.parked.add(job.id)
        self.parked += 1

    def unpark(self, limit: ConcurrencyLimit, now: float) -> None:
        """Let one job into the queue that the limit has held, if there is any."""
        if limit.held.waiting:
            job = limit.held.first(now)
            limit.held.pop_first()
            limit.parked.remove(job.id)
            self.parked -= 1
            self.queue.push_front(job)

    def free(self, limit: ConcurrencyLimit, now: float) -> None:
        """Note that a job of that limit is with its worker no more."""
        limit.sent -= 1
        self.unpark(limit, now)

    def requeue(self, job: JobRecord, now: float, why: str) -> None:
        """Put a job that was SENT before those of its priority that never were."""
        job.note(now, f"requeued: {why}")
        job.move(JobState.QUEUED)
        self.queue.push_front(job)

    def retry(self, job: JobRecord, now: float, why: str, *, lost: bool) -> bool:
        """Let a job try again whose run failed, some time later.

        Args:
            job: it was SENT.
            now: the time.
            why: for its story.
            lost: its worker died. The first time that may be anybody's fault, and it
                goes on at once.

        Returns:
            False if it has no retries left, or none that could begin before its
            deadline: its own error then says more than that it ran out of time.
        """
        if job.retries <= 0:
            return False
        u = spread(job.id, job.attempts)
        delay = restart_delay(job.kills, u) if lost else retry_delay(job.attempts, u)
        if delay and now + delay >= job.deadline:
            return False
        job.retried += 1
        self.retried += 1
        if delay:
            job.note(now, f"{why}, to be tried again in {delay:.3f} s")
            job.move(JobState.DELAYED)
            self.delays.set(job.id, now + delay)
        else:
            self.requeue(job, now, why)
        return True

    def wake(self, now: float) -> None:
        """Queue the jobs whose delay has ended."""
        while (job_id := self.delays.pop_due(now)) is not None:
            job = self.jobs[job_id]
            job.move(JobState.QUEUED)
            self.queue.push_front(job)

    def stats(self, workers: int, idle_workers: int) -> SchedulerStats:
        """Return a snapshot, with what is said here about the workers."""
        endings = self.endings
        queued = self.queue.waiting + self.held.waiting + self.parked
        delayed = len(self.delays)
        return SchedulerStats(
            queued=queued,
            parked=self.parked,
            delayed=delayed,
            sent=len(self.jobs) - queued - delayed,
            size=self.size,
            workers=workers,
            idle_workers=idle_workers,
            submitted=len(self.jobs) + sum(endings.values()),
            completed=endings[Ending.RESULT],
            failed=endings[Ending.ERROR] + endings[Ending.QUARANTINED],
            cancelled=endings[Ending.CANCELLED],
            timed_out=endings[Ending.TIMEOUT] + endings[Ending.RUN_TIMEOUT],
            lost=endings[Ending.LOST],
            poisoned=endings[Ending.POISON],
            retried=self.retried,
            requeued=self.requeued,
        )

    def story(self, job_id: int) -> str:
        """Return what is known of a job, in one line; also of some that have ended."""
        job = self.jobs.get(job_id)
        if job is not None:
            return job.story()
        for facts, ending in reversed(self.stories):
            if facts[0] == job_id:
                return f"{told(facts)}; ended by {ending.value}"
        return f"job {job_id} is not pending: it has ended, or never was submitted"

    def _keep_story(self, job: JobRecord, ending: Ending) -> None:
        self.stories.append((job.facts(), ending))

    def check(self) -> None:
        """Assert the invariants."""
        self.queue.check()
        self.deadlines.check()
        self.delays.check()
        jobs = self.jobs.values()
        queued = {job.id for job in jobs if job.state is JobState.QUEUED}
        delayed = {job.id for job in jobs if job.state is JobState.DELAYED}
        queued -= self._check_limits()
        assert {job.id for job in self.queue.jobs() + self.held} == queued
        assert set(self.delays) == delayed
        assert set(self.deadlines) == {job.id for job in jobs if job.deadline != inf}
        assert self.size == sum(job.size for job in jobs)

    def _check_limits(self) -> set[int]:
        """Assert what holds of limits; returns the jobs that they hold."""
        parked: set[int] = set()
        limits = {job.terms.limit for job in self.jobs.values()}
        for limit in limits - {None}:
            assert limit is not None
            limit.held.check()
            parked |= limit.parked
            assert {job.id for job in limit.held.jobs()} == limit.parked
            assert limit.sent <= limit.most
            queued = [
                job
                for job in self.jobs.values()
                if job.terms.limit is limit and job.state is JobState.QUEUED
            ]
            ready = len(queued) - len(limit.parked)
            if limit.parked:
                assert limit.sent + ready >= limit.most, "held for nothing"
        assert self.parked == len(parked)
        return parked
