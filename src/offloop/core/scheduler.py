"""Which job goes to which worker, and what becomes of it: facts in, commands out.

    job_submitted   job_cancelled                  SendJobs  RecallJobs   InterruptJob
    jobs_finished   job_failed       ┌─────────┐
    job_interrupted jobs_returned  ─▶│Scheduler│─▶  CloseJob  Settle  SettleResults
    job_yielded     time_passed      └─────────┘
    worker_ready    worker_retiring                StopWorker   KillWorker
    worker_lost

Each fact is a method in the past tense; it returns what must be done now, in this
order. The shell that calls it owns sockets, clock, processes and futures: this module
never touches any of them, and the same facts always lead to the same commands.

Three promises carry the rest:
- a job is settled exactly once, and whatever a worker says about it afterwards is
  dropped;
- a job that has not begun is never charged for a lost worker, and goes back to the
  front;
- a job whose wait is over (cancelled, timed out) is settled at once; making the worker
  usable again is done behind its back.

A worker runs its inbox in order, so the oldest job in it is the one that runs, as far
as one can know: an answer may be on its way. `README.md` beside this file has the whole
story.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from offloop.core.admission import Admission
from offloop.core.commands import Command, SettleResults
from offloop.core.credit import Roster, WorkerRecord
from offloop.core.dispatch import Dispatch
from offloop.core.early_ends import EarlyEnds
from offloop.core.job import Ending, JobState
from offloop.core.ledger import Ledger
from offloop.core.quarantine import Quarantine
from offloop.core.runs import Runs
from offloop.errors import InternalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from offloop.core.job import JobRecord
    from offloop.core.ledger import SchedulerStats

_SENT = JobState.SENT
_FAILED = JobState.FAILED
_CANCELLED = JobState.CANCELLED


class Scheduler:
    """Decides about jobs; forgets each one that has ended and been answered for.

    Args:
        max_pending: jobs that may wait or run at once; None for any number.
        max_pending_bytes: bytes of pending jobs from which no further job is taken, so
            that they exceed it by one job at most; None for any number.
        grace: seconds that an interrupted job has before its worker is killed.
        leave_time: seconds that a worker without a job has to leave in; user code may
            run then too, at the interpreter's end.
        max_kills: workers that a job may kill before it is called poison.
        max_credit: jobs that one worker may hold.
        window: seconds that the jobs of a shared inbox may take together.
    """

    def __init__(
        self,
        *,
        max_pending: int | None = None,
        max_pending_bytes: int | None = None,
        grace: float = 0.2,
        leave_time: float = 5.0,
        max_kills: int = 3,
        max_credit: int = 64,
        window: float = 0.001,
    ) -> None:
        #: returns the number for a new job, larger than all before it
        self.next_id: Callable[[], int] = count(1).__next__
        self._ledger = Ledger()
        #: the ledger's pending jobs and queue, one look nearer
        self._jobs = self._ledger.jobs
        self._queue = self._ledger.queue
        self._admission = Admission(self._ledger, max_pending, max_pending_bytes)
        self._most = self._admission.most
        self._counts_bytes = self._admission.counts_bytes
        #: every worker between `worker_ready` and `worker_lost`
        self._workers: dict[int, WorkerRecord] = {}
        self._roster = Roster(max_credit, window)
        self._runs = Runs(self._roster, grace, leave_time)
        self._quarantine = Quarantine()
        self._dispatch = Dispatch(
            self._ledger, self._roster, self._runs, self._quarantine
        )
        self._early = EarlyEnds(
            self._ledger, self._workers, self._runs, self._quarantine, max_kills
        )

    # Questions

    @property
    def pending(self) -> int:
        """Number of jobs that have not been settled."""
        return len(self._jobs)

    @property
    def idle(self) -> bool:
        """True while no job is pending."""
        return not self._jobs

    @property
    def room(self) -> int:
        """Number of jobs that would certainly be accepted now, one after the other."""
        return self._admission.room

    def __contains__(self, job_id: int) -> bool:
        """Tell whether a job has not been settled."""
        return job_id in self._jobs

    def knows(self, worker: int) -> bool:
        """Tell whether a worker is between `worker_ready` and `worker_lost`."""
        return worker in self._workers

    def held(self, worker: int, job_id: int) -> JobRecord | None:
        """Return the job if that worker has not answered for it yet, wanted or not."""
        record = self._workers.get(worker)
        return None if record is None else record.inbox.get(job_id)

    def jobs_of(self, worker: int) -> int:
        """Return how many jobs a worker has not answered for; 0 if it is not known."""
        record = self._workers.get(worker)
        return 0 if record is None else len(record.inbox)

    @property
    def waiting(self) -> int:
        """Number of jobs that wait for a worker."""
        return self._queue.waiting

    def longest_wait(self, now: float) -> float:
        """Return for how many seconds the job whose turn is next has been waiting."""
        if not self._queue.waiting:
            return 0.0
        return now - self._queue.first(now).submitted_at

    def idle_workers(self) -> list[int]:
        """Return the workers that have no job and may get one, idle longest first."""
        return self._roster.idle_workers()

    def check_room(self, now: float, elsewhere: int = 0) -> None:
        """Raise what `job_submitted` would raise if it came now.

        Args:
            now: the time.
            elsewhere: jobs that are on their way here, and count as well.

        Raises:
            PoolFull: as many jobs, or bytes of jobs, are pending as may be.
        """
        self._admission.check(now, elsewhere)

    def next_due(self) -> float | None:
        """Return when `time_passed` must be called next, None if it need not be."""
        ledger = self._ledger
        first = None
        for timers in (ledger.deadlines, ledger.delays, self._runs.looks):
            due = timers.next_due()
            if due is not None and (first is None or due < first):
                first = due
        return first

    def stats(self) -> SchedulerStats:
        """Return a snapshot; it costs the same with any number of jobs and workers."""
        return self._ledger.stats(len(self._workers), self._roster.idle)

    def story(self, job_id: int) -> str:
        """Return what is known of a job, in one line; also of some that have ended."""
        return self._ledger.story(job_id)

    # Facts about jobs

    def job_submitted(self, job: JobRecord, now: float) -> list[Command]:
        """Take a new job, and send it at once if a worker has room.

        Raises:
            PoolFull: as many are pending as may be; nothing has changed.
        """
        if self._counts_bytes:
            self._admission.check(now)
        self.job_held(job, now)
        return self.held_released(now)

    def job_held(self, job: JobRecord, now: float) -> None:
        """Take a new job that others follow at once; `held_released` sends them.

        Deciding about many at a time costs half of what it costs one by one. Bytes are
        not looked at: who has encoded a job for a while has asked for `room` before.

        Raises:
            PoolFull: as many are pending as may be; nothing has changed.
        """
        jobs = self._jobs
        if len(jobs) >= self._most:
            self._admission.check(now)
        if job.id in jobs:
            raise self._bug(f"job {job.id} was submitted twice", job.id)
        self._ledger.add(job, now)

    def held_released(self, now: float) -> list[Command]:
        """Send what was held back, as far as workers have room."""
        commands: list[Command] = []
        self._dispatch.release(now, commands)
        return commands

    def jobs_finished(
        self, worker: int, answers: Sequence[tuple[int, Any, float]], now: float
    ) -> list[Command]:
        """Settle jobs with the results that their worker sent, and send new ones.

        Args:
            worker: number of the worker that ran them.
            answers: job, result and run time of each, in the order of the runs.
            now: the time.
        """
        record = self._workers.get(worker)
        if record is None:
            raise self._not_known(worker)
        inbox, interrupted = record.inbox, record.interrupted
        left = answers[-1][0]
        results: list[tuple[JobRecord, Any]] = []
        run_times: list[float] = []
        terms = None
        for job_id, result, run_time in answers:
            job = inbox.pop(job_id, None)
            if job is None:
                raise self._not_held(record, job_id)
            if job.terms is not terms:
                if terms is not None:
                    terms.cost.observe_all(run_times)
                    run_times = []
                terms = job.terms
            run_times.append(run_time)
            record.load -= job.charge
            job.run_time = run_time
            if terms.limit is not None:
                self._ledger.free(terms.limit, now)
            if job.state is _SENT:
                job.attempts += 1
                results.append((job, result))
            if job_id == interrupted:
                left = job_id
        if self._quarantine.suspects:
            for job, _ in results:
                self._quarantine.lived(job)
        assert terms is not None  # there is one answer at least
        terms.cost.observe_all(run_times)
        commands: list[Command] = []
        if results:
            self._ledger.settle_results(results, now)
            commands.append(SettleResults(results))
        self._roster.file(record)
        if inbox or record.closed:
            self._runs.go_on(record, left, now, commands)
        if self._queue.waiting:
            self._dispatch.send(now, commands)
        return commands

    def job_yielded(self, worker: int, job_id: int, now: float) -> list[Command]:
        """Never try a job again that has given a part of its result away."""
        record = self._worker(worker)
        job = record.inbox.get(job_id)
        if job is None:
            raise self._not_held(record, job_id)
        if job.retries:
            job.retried = job.terms.retries
            job.note(now, "has given a part away, so it is not tried again")
        return []

    def job_failed(
        self,
        worker: int,
        job_id: int,
        error: Any,
        run_time: float,
        retryable: bool,
        now: float,
    ) -> list[Command]:
        """Try a job again whose function raised, or settle it with the error.

        Args:
            worker: number of the worker that ran it.
            job_id: number of the job.
            error: what becomes the detail of `Settle`.
            run_time: seconds that the run took.
            retryable: the error is one after which the job may be tried again.
            now: the time.
        """
        record = self._worker(worker)
        job = self._take(record, job_id, now)
        job.run_time = run_time
        job.terms.cost.observe(run_time)
        self._quarantine.lived(job)
        commands: list[Command] = []
        if job.state is _SENT:
            job.attempts += 1
            ledger = self._ledger
            if not (retryable and ledger.retry(job, now, "failed", lost=False)):
                ledger.settle(job, _FAILED, Ending.ERROR, error, now, commands)
        if record.inbox or record.closed:
            self._runs.go_on(record, job_id, now, commands)
        self._dispatch.send(now, commands)
        return commands

    def job_interrupted(self, worker: int, job_id: int, now: float) -> list[Command]:
        """Let go of a worker that stopped a job as it was told to, and leaves now.

        A job that raised JobInterrupted by itself ends as cancelled.
        """
        record = self._worker(worker)
        job = self._take(record, job_id, now)
        commands: list[Command] = []
        if job.state is _SENT:
            job.attempts += 1
            self._ledger.settle(job, _CANCELLED, Ending.CANCELLED, None, now, commands)
        for waiting in list(record.inbox):
            self._take_back(record, waiting, now)
        self._runs.leave(record, now)
        self._dispatch.send(now, commands)
        return commands

    def job_cancelled(self, job_id: int, now: float) -> list[Command]:
        """Settle a job that nobody waits for any more, and stop it if it runs.

        A job that has ended is left alone: its result was faster.
        """
        commands: list[Command] = []
        self._dispatch.queue_held(now, commands)
        job = self._jobs.get(job_id)
        if job is not None:
            self._early.end(job, _CANCELLED, Ending.CANCELLED, now, commands)
        self._dispatch.send(now, commands)
        return commands

    def jobs_returned(
        self, worker: int, job_ids: Iterable[int], now: float
    ) -> list[Command]:
        """Queue jobs again that a worker gave back without having begun them."""
        record = self._worker(worker)
        head = record.head().id if record.inbox else None
        commands: list[Command] = []
        for job_id in job_ids:
            # One that leaves gives back all it had, perhaps after its last word.
            if job_id in record.inbox or not record.ending:
                self._take_back(record, job_id, now)
        if head is not None and head not in record.inbox:
            self._runs.go_on(record, head, now, commands)
        self._dispatch.send(now, commands)
        return commands

    def cancel_all(self, now: float) -> list[Command]:
        """Cancel every pending job, as if `job_cancelled` came for all of them at once.

        One by one, each cancellation would let the next job in the queue begin.
        """
        commands: list[Command] = []
        self._dispatch.queue_held(now, commands)
        self._early.cancel_all(now, commands)
        return commands

    def abandon_all(self, detail: Any, now: float) -> list[Command]:
        """Settle every job that no worker has, as lost: no worker can be had.

        Those that are with a worker may still end well, and are left alone.
        """
        commands: list[Command] = []
        self._dispatch.queue_held(now, commands)
        for job in list(self._jobs.values()):
            before = job.state
            if before is not _SENT:
                self._ledger.settle(job, _FAILED, Ending.LOST, detail, now, commands)
                self._ledger.leave_wait(job, before, now)
        return commands

    # Facts about workers, and time

    def worker_ready(self, worker: int, now: float) -> list[Command]:
        """Take a new worker; it may get jobs from now on."""
        if worker in self._workers:
            raise self._bug(f"worker {worker} got ready twice")
        record = self._workers[worker] = WorkerRecord(worker)
        self._roster.staff = len(self._workers)
        self._roster.open(record)
        commands: list[Command] = []
        self._dispatch.send(now, commands)
        return commands

    def worker_retiring(self, worker: int, now: float) -> list[Command]:
        """Give a worker no more jobs, and stop it when it has answered for its last."""
        record = self._worker(worker)
        commands: list[Command] = []
        if record.retiring or record.ending:
            return commands
        record.retiring = True
        self._roster.close(record)
        if record.inbox:
            self._runs.recall_rest(record, commands)
        else:
            self._runs.stop(record, now, commands)
        return commands

    def worker_lost(
        self, worker: int, running: int | None, detail: Any, now: float
    ) -> list[Command]:
        """Blame the job that a dead worker was running, and queue its others again.

        All answers that it gave must have been told before.

        Args:
            worker: number of the worker.
            running: number of the job that it was running when it died, if any.
            detail: of `Settle`, should the job end by this.
            now: the time.
        """
        record = self._worker(worker)
        del self._workers[worker]
        self._roster.staff = len(self._workers)
        self._roster.close(record)
        self._runs.looks.drop(worker)
        commands: list[Command] = []
        blamed = False
        for job_id in list(record.inbox):
            job = record.inbox[job_id]
            if job_id == running and job.state is _SENT:
                if job.terms.limit is not None:
                    self._ledger.free(job.terms.limit, now)
                blamed = self._early.blame(job, record, detail, now, commands)
            else:
                self._take_back(record, job_id, now)
        if blamed:
            self._dispatch.refuse_waiting(now, commands)
        self._dispatch.send(now, commands)
        return commands

    def time_passed(self, now: float) -> list[Command]:
        """Do what has fallen due: deadlines, retries, limits of runs, ends of grace."""
        commands: list[Command] = []
        self._dispatch.queue_held(now, commands)
        self._early.time_passed(now, commands)
        self._dispatch.send(now, commands)
        return commands

    # Answers

    def _worker(self, number: int) -> WorkerRecord:
        record = self._workers.get(number)
        if record is None:
            raise self._not_known(number)
        return record

    def _not_known(self, number: int) -> InternalError:
        return self._bug(f"worker {number} is not known")

    def _take(self, worker: WorkerRecord, job_id: int, now: float) -> JobRecord:
        """Take a job out of the inbox that its worker has answered for."""
        job = self._roster.take(worker, job_id)
        if job is None:
            raise self._not_held(worker, job_id)
        if job.terms.limit is not None:
            self._ledger.free(job.terms.limit, now)
        return job

    def _not_held(self, worker: WorkerRecord, job_id: int) -> InternalError:
        text = f"worker {worker.number} spoke of job {job_id}, which it does not have"
        return self._bug(text, job_id)

    def _take_back(self, worker: WorkerRecord, job_id: int, now: float) -> None:
        """Queue a job again that has not begun, if it is still wanted."""
        job = self._take(worker, job_id, now)
        if job.state is _SENT:
            self._ledger.requeued += 1
            self._ledger.requeue(job, now, f"not begun by worker {worker.number}")

    # Self-check

    def check(self) -> None:
        """Assert every invariant; for tests, as it looks at every job.

        Raises:
            AssertionError: one does not hold, which is a bug of this package.
        """
        self._ledger.check()
        self._roster.check(self._workers)
        self._runs.check(self._workers)
        self._quarantine.check()
        assert not (self._queue.waiting and self._roster.idle), "work and idle hands"
        held = [job for one in self._workers.values() for job in one.inbox.values()]
        assert len({job.id for job in held}) == len(held), "a job is in two inboxes"
        sent = {job.id for job in held if job.state is _SENT}
        assert sent == {job.id for job in self._jobs.values() if job.state is _SENT}
        for number, worker in self._workers.items():
            for job_id, job in worker.inbox.items():
                assert job.worker == number, self.story(job_id)
                assert (job_id in self._jobs) == (job.state is _SENT), job.story()

    def _bug(self, text: str, job_id: int | None = None) -> InternalError:
        story = "" if job_id is None else self.story(job_id)
        return InternalError(f"{text}; please report this", story=story)
