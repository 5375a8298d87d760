"""Which worker may get the next job, and how many jobs a worker may hold.

An idle worker may always get a job. A worker that holds jobs may get another one only
while all of them together are expected to take less than `window`: then the worker
never waits for the wire between short jobs, and no job waits long behind another one.
While more jobs wait than there are workers, one that runs a job of a few windows may
have the next one beside it: all others are as busy, so nobody could begin it sooner by
much. What a function's next run takes is learnt from its former ones
(`policies.RunTime`); a function that has run only a few times counts as endless, so its
jobs have a worker for themselves.

    jobs held   0: {w5, w2}   1: {w1}   2: {}   ...   max_credit - 1: {}
                 ▲ first choice                        not in a bucket: full or closed

Workers with room are kept in buckets by the number of jobs that they hold, so that the
one with the fewest is found at once among a thousand, and none gets its second job
before all have their first. Within a bucket the latest comer is taken: its caches are
warm, and those that nobody needs stay idle.

This module never makes a command, never changes a job's state, and does not know
priorities.
"""

from __future__ import annotations

from math import inf, isclose
from typing import TYPE_CHECKING

from offloop.core.job import JobState

if TYPE_CHECKING:
    from offloop.core.job import JobRecord, Terms

_SENT = JobState.SENT

# Nothing takes no time: decoding the call and encoding the answer cost about this much.
_LEAST_CHARGE = 1e-6

# A job that has run this many windows has shown that its function's estimate was wrong.
_PATIENCE = 10

# So many windows may a job and the one that is ready behind it take together.
_PAIR = 10


class WorkerRecord:
    """What the scheduler knows of one worker, from `worker_ready` to `worker_lost`."""

    __slots__ = (
        "bucket",
        "closed",
        "ending",
        "head_since",
        "inbox",
        "interrupt_at",
        "interrupted",
        "kill_at",
        "load",
        "look_at",
        "number",
        "recalled",
        "retiring",
        "slow",
    )

    def __init__(self, number: int) -> None:
        #: unique among the workers of the pool
        self.number = number
        #: jobs sent and not answered, oldest first; those not SENT are unwanted: they
        #: were settled meanwhile, and stay until the worker answers or gives them back
        self.inbox: dict[int, JobRecord] = {}
        #: sum of the inbox's charges; exactly 0.0 while it is empty
        self.load = 0.0
        #: the bucket that holds it; None while it is full or closed
        self.bucket: dict[WorkerRecord, None] | None = None
        #: since when the oldest job of the inbox can have been running
        self.head_since = 0.0
        #: gets no jobs: it is slow, retiring or ending, or a job of its was interrupted
        self.closed = False
        #: the oldest job has run longer than one of a shared inbox should
        self.slow = False
        #: was asked to give back all jobs behind the oldest one
        self.recalled = False
        #: number of the job that was told to stop and has not been answered for
        self.interrupted: int | None = None
        #: when that job is interrupted, which was asked to close; else inf
        self.interrupt_at = inf
        #: when it is killed; inf unless it was interrupted
        self.kill_at = inf
        #: gets no more jobs, and is stopped when its inbox is empty
        self.retiring = False
        #: its loss is all that is expected: stopped, killed, or leaving by itself
        self.ending = False
        #: when the scheduler looks at it next; never later than it has to
        self.look_at = inf

    def head(self) -> JobRecord:
        """Return the job that it runs, as far as one can know; it must have one."""
        return next(iter(self.inbox.values()))

    def rest(self) -> list[int]:
        """Return the numbers of the wanted jobs behind the oldest one."""
        jobs = iter(self.inbox.values())
        next(jobs)
        return [job.id for job in jobs if job.state is _SENT]


def charge_of(terms: Terms) -> float:
    """Return by how many seconds a job of these terms fills an inbox.

    One whose cancellation kills the worker at once fills it wholly, so that the kill
    never hits a neighbour that has just begun.
    """
    if terms.on_cancel == "kill":
        return inf
    estimate = terms.cost.estimate
    return estimate if estimate > _LEAST_CHARGE else _LEAST_CHARGE


class Roster:
    """The workers that may get jobs, ordered by the number that they hold.

    Args:
        max_credit: jobs that one worker may hold.
        window: seconds that the jobs of one inbox may take together if it has several.
    """

    __slots__ = (
        "_buckets",
        "_fewest",
        "_pair",
        "max_credit",
        "patience",
        "room",
        "staff",
        "window",
    )

    def __init__(self, max_credit: int, window: float) -> None:
        self.max_credit = max_credit
        self.window = window
        #: seconds that a job may run while others wait behind it
        self.patience = window * _PATIENCE
        #: seconds that two jobs may take together if there is plenty to do
        self._pair = window * _PAIR
        #: number of workers, whether they may get jobs or not
        self.staff = 0
        #: number of workers that have room for at least a short job
        self.room = 0
        #: those workers, by the number of jobs that they hold
        self._buckets: list[dict[WorkerRecord, None]] = [{} for _ in range(max_credit)]
        #: all buckets before this one are empty
        self._fewest = 0

    @property
    def idle(self) -> int:
        """Number of workers that have no job and may get one."""
        return len(self._buckets[0])

    def idle_workers(self) -> list[int]:
        """Return the numbers of those workers, idle longest first."""
        return [worker.number for worker in self._buckets[0]]

    def pick(
        self, charge: float, now: float, plenty: bool = False
    ) -> WorkerRecord | None:
        """Take out the worker that should get a job; None if none has room for it.

        Only the worker with the fewest jobs is asked: a fuller one hardly ever has more
        room. It is in no bucket until `file`.

        Args:
            charge: of the job.
            now: the time.
            plenty: more jobs wait than there are workers.
        """
        buckets = self._buckets
        while self.room:
            fewest = self._fewest
            while not buckets[fewest]:
                fewest += 1
            self._fewest = fewest
            bucket = buckets[fewest]
            worker = bucket.popitem()[0]
            if fewest:
                if now - worker.head_since > self.patience:
                    worker.bucket = None
                    worker.closed = worker.slow = True
                    self.room -= 1
                    continue
                ready = fewest == 1 and plenty
                most = self._pair if ready else self.window
                if worker.load + charge > most:
                    bucket[worker] = None
                    return None
            worker.bucket = None
            self.room -= 1
            return worker
        return None

    def take(self, worker: WorkerRecord, job_id: int) -> JobRecord | None:
        """Take a job out of the inbox and return it; None if it is not in there."""
        job = worker.inbox.pop(job_id, None)
        if job is not None:
            worker.load -= job.charge
            self.file(worker)
        return job

    def close(self, worker: WorkerRecord) -> None:
        """Let the worker get no jobs until `open`."""
        worker.closed = True
        self.file(worker)

    def open(self, worker: WorkerRecord) -> None:
        """Let the worker get jobs, as its credit allows."""
        worker.closed = False
        self.file(worker)

    def file(self, worker: WorkerRecord) -> None:
        """Put the worker where it belongs, as its inbox or `closed` has changed."""
        if worker.bucket is not None:
            del worker.bucket[worker]
            self.room -= 1
        held = len(worker.inbox)
        if not held:
            worker.load = 0.0
        most = self._pair if held == 1 else self.window
        if worker.closed or held >= self.max_credit or worker.load >= most:
            worker.bucket = None
            return
        worker.bucket = bucket = self._buckets[held]
        bucket[worker] = None
        self.room += 1
        if held < self._fewest:
            self._fewest = held

    def check(self, workers: dict[int, WorkerRecord]) -> None:
        """Assert the invariants; `workers` are all that are known."""
        assert self.room == sum(len(bucket) for bucket in self._buckets)
        assert not any(self._buckets[: self._fewest])
        for held, bucket in enumerate(self._buckets):
            for worker in bucket:
                assert workers[worker.number] is worker
                assert worker.bucket is bucket
                assert len(worker.inbox) == held
        for worker in workers.values():
            self._check_worker(worker)

    def _check_worker(self, worker: WorkerRecord) -> None:
        jobs = worker.inbox.values()
        most = self._pair if len(jobs) == 1 else self.window
        full = len(jobs) >= self.max_credit or worker.load >= most
        assert (worker.bucket is None) == (worker.closed or full)
        assert len(jobs) <= self.max_credit
        total = sum(job.charge for job in jobs)
        assert isclose(total, worker.load, abs_tol=1e-9)
        most = self._pair if len(jobs) == 2 else self.window
        assert len(jobs) <= 1 or total <= most + 1e-9
