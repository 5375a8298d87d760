"""Workers that are made of lists, and a referee who judges every command.

Each fake worker has an inbox, runs one job at a time, and speaks to the scheduler
through two lines that deliver late, in order: what a test delivers when decides which
races happen. It keeps the promises of a real one: answers are delivered before its
death is told, an interrupt reaches the very job that it names or nobody, and a kill
ends all at once.

The referee keeps books of its own, knows nothing of the scheduler's inside, and fails
the test at the first command that should not have been given.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING

from offloop.core.job import Ending, JobRecord, JobState, Terms
from offloop.core.scheduler import Scheduler

if TYPE_CHECKING:
    from offloop.core.commands import (
        CloseJob,
        InterruptJob,
        KillWorker,
        RecallJobs,
        SendJobs,
        Settle,
        SettleResults,
        StopWorker,
    )
    from offloop.core.limits import ConcurrencyLimit
    from offloop.core.policies import RunTime

GRACE = 0.2
LEAVE_TIME = 1.0
WINDOW = 0.001
PAIR = 10 * WINDOW
MAX_KILLS = 3
MAX_CREDIT = 5
MAX_DEATHS = 5
ROW = 60.0
PATIENCE = 10.0
#: seconds that a job waits at most that has killed its second worker
LONGEST_DELAY = 0.1

#: facts after which no job is held back any more
RELEASING = {
    "job_submitted",
    "held_released",
    "job_cancelled",
    "cancel_all",
    "time_passed",
}


class Resting(JobRecord):
    """A job that can be closed where it rests, as a stream can."""

    __slots__ = ()

    @property
    def closes(self) -> bool:
        return True


@dataclass
class Entry:
    """What the referee knows of a job."""

    record: JobRecord
    order: int
    retries: int
    sent: int = 0
    #: worker that has it
    holder: int | None = None
    ending: Ending | None = None
    kills: int = 0
    #: came back from a worker without having been charged or delayed
    returned: bool = False
    #: failed, and waits for its retry
    delayed: bool = False
    submitted_at: float = 0.0

    @property
    def waits(self) -> bool:
        return self.ending is None and self.holder is None and not self.delayed

    @property
    def kind(self) -> tuple:
        """Among jobs of one kind, first come is first served."""
        return (
            self.record.terms.priority,
            self.record.terms.key,
            self.record.terms.limit,
        )


@dataclass
class FakeWorker:
    """One worker, as it is, and as the referee believes that the scheduler sees it."""

    number: int
    #: messages on their way to it
    inbound: deque = field(default_factory=deque)
    #: facts on their way to the scheduler
    outbound: deque = field(default_factory=deque)
    inbox: list[int] = field(default_factory=list)
    running: int | None = None
    #: job that the last interrupt named
    target: int | None = None
    stopping: bool = False
    gone: bool = False

    # The referee's books: jobs sent and not answered for, with their charge
    held: dict[int, float] = field(default_factory=dict)
    interrupted: int | None = None
    grace_over: float = inf
    #: when a job that was asked to close may be interrupted
    patience_over: float = inf
    #: since when the first of `held` can have been running
    head_since: float = 0.0
    #: jobs that were asked back
    recalled: set[int] = field(default_factory=set)
    retired: bool = False
    ending: bool = False

    @property
    def usable(self) -> bool:
        return not (self.retired or self.ending or self.interrupted is not None)

    def receive(self) -> None:
        """Take the next message, if there is one."""
        if self.gone or not self.inbound:
            return
        kind, body = self.inbound.popleft()
        if kind == "job":
            self.inbox.append(body)
        elif kind == "recall":
            back = [job for job in self.inbox if job in body]
            self.inbox = [job for job in self.inbox if job not in body]
            self.outbound.append(("jobs_returned", back))
        else:
            self.stopping = True

    def work(self) -> None:
        """Begin the next job, or leave if asked to and nothing is left."""
        if self.gone or self.running is not None:
            return
        if self.inbox:
            self.running = self.inbox.pop(0)
        elif self.stopping:
            self.gone = True

    def answer(self, ok: bool, run_time: float, retryable: bool = False) -> None:
        """End the running job."""
        if self.gone or self.running is None:
            return
        if ok:
            fact = ("job_finished", self.running, "result", run_time)
        else:
            fact = ("job_failed", self.running, "error", run_time, retryable)
        self.outbound.append(fact)
        self.running = None

    def give_a_part(self) -> None:
        """Tell of a part of what the running job gives."""
        if not self.gone and self.running is not None:
            self.outbound.append(("job_yielded", self.running))

    def notice(self, returned_last: bool = False) -> None:
        """Stop the running job if the interrupt was meant for it, and leave."""
        if self.gone or self.running is None or self.running != self.target:
            return
        words = [
            ("jobs_returned", list(self.inbox)),
            ("job_interrupted", self.running),
        ]
        self.outbound.extend(reversed(words) if returned_last else words)
        self.inbox.clear()
        self.running = None
        self.gone = True

    def die(self) -> None:
        """End at once, whatever runs."""
        self.gone = True


class World:
    """A scheduler among fake workers, with the referee's eyes on it."""

    def __init__(self, *, thorough: bool = True, **options) -> None:
        options = {"max_credit": MAX_CREDIT, "max_kills": MAX_KILLS} | options
        self.scheduler = Scheduler(
            grace=GRACE, leave_time=LEAVE_TIME, window=WINDOW, **options
        )
        self.max_credit = options["max_credit"]
        self.thorough = thorough
        self.now = 10.0
        self.workers: dict[int, FakeWorker] = {}
        self.last_worker = 0
        self.jobs: dict[int, Entry] = {}
        #: never sent, and not ended, by kind, in order of submission
        self.fresh: dict[tuple, deque[Entry]] = {}
        #: what jobs have in common, by what they were submitted with
        self.terms = {}
        #: jobs that were submitted to be sent with others
        self.held_back: set[int] = set()
        #: workers that a function has killed in a row, and when it was the last one
        self.deaths: dict[RunTime, tuple[int, float]] = {}
        #: fact that is being told, for judging what comes of it
        self.fact: tuple = ()

    # Facts

    def tell(self, name: str, *args) -> None:
        """Tell the scheduler a fact, judge its commands and carry them out."""
        self.fact = (name, *args)
        commands = getattr(self.scheduler, name)(*args, self.now)
        if name in RELEASING:
            self.held_back.clear()
        for command in commands or ():
            judge = getattr(self, f"judge_{type(command).__name__}")
            judge(command)
        if self.thorough:
            self.scheduler.check()
            self.judge_idle_hands()
            for worker in self.workers.values():
                self.judge_head(worker)

    def submit(
        self, cost, *, hold=False, rests=False, key=None, limit=None, size=0, **options
    ) -> int:
        deadline = options.pop("deadline", inf)
        alike = (cost, key, limit, *options.items())
        terms = self.terms.get(alike)  # as calls with the same options share them
        if terms is None:
            terms = self.terms[alike] = Terms(cost, key=key, limit=limit, **options)
        kind = Resting if rests else JobRecord
        record = kind(self.scheduler.next_id(), terms, deadline=deadline)
        record.size = size
        entry = Entry(record, order=len(self.jobs), retries=record.retries)
        entry.submitted_at = self.now
        self.jobs[record.id] = entry
        self.fresh.setdefault(entry.kind, deque()).append(entry)
        if hold:
            self.held_back.add(record.id)
        self.tell("job_held" if hold else "job_submitted", record)
        return record.id

    def release(self) -> None:
        self.tell("held_released")

    def start_worker(self) -> FakeWorker:
        self.last_worker += 1
        worker = self.workers[self.last_worker] = FakeWorker(self.last_worker)
        self.tell("worker_ready", worker.number)
        return worker

    def retire(self, worker: FakeWorker) -> None:
        worker.retired = True
        self.tell("worker_retiring", worker.number)

    def cancel(self, job_id: int) -> None:
        self.tell("job_cancelled", job_id)
        assert self.jobs[job_id].ending is not None

    def cancel_all(self) -> None:
        self.tell("cancel_all")
        assert all(entry.ending is not None for entry in self.jobs.values())

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.tell("time_passed")
        due = self.scheduler.next_due()
        assert due is None or due > self.now, "what was due is done"
        if self.thorough:
            for worker in self.workers.values():
                self.judge_patience(worker)

    def deliver(self, worker: FakeWorker) -> None:
        """Let the worker's next word arrive, at last that it is no more."""
        if worker.outbound:
            name, *args = worker.outbound.popleft()
            self.arrive(worker, name, *args)
        elif worker.gone:
            self.lose(worker)

    def deliver_results(self, worker: FakeWorker) -> None:
        """Let all results arrive at once that the worker has to tell of now."""
        answers = []
        while worker.outbound and worker.outbound[0][0] == "job_finished":
            answers.append(worker.outbound.popleft()[1:])
        if not answers:
            return
        numbers = [answer[0] for answer in answers]
        wanted = [n for n in numbers if self.jobs[n].ending is None]
        for number in numbers:
            self.let_go(worker, number)
        for number in wanted:
            self.deaths.pop(self.jobs[number].record.terms.cost, None)
        self.tell("jobs_finished", worker.number, answers)
        assert all(self.jobs[number].ending is Ending.RESULT for number in wanted)

    def arrive(self, worker: FakeWorker, name: str, *args) -> None:
        if name == "jobs_returned":
            for job_id in args[0]:
                self.let_go(worker, job_id, returned=True)
            self.tell(name, worker.number, *args)
            return
        entry = self.jobs[args[0]]
        if name == "job_yielded":
            if entry.ending is None:
                entry.retries = 0
                self.tell(name, worker.number, *args)
            return
        wanted = entry.ending is None
        self.let_go(worker, args[0])
        if name == "job_interrupted":
            worker.ending = True
            worker.grace_over = self.now + LEAVE_TIME
            for job_id in list(worker.held):
                self.let_go(worker, job_id, returned=True)
        entry.delayed = (
            wanted and name == "job_failed" and args[3] and entry.retries > 0
        )
        if name == "job_failed" or (name == "job_finished" and wanted):
            self.deaths.pop(entry.record.terms.cost, None)
        if name == "job_finished":
            self.tell("jobs_finished", worker.number, [tuple(args)])
        else:
            self.tell(name, worker.number, *args)
        if wanted and not entry.delayed:
            assert entry.ending is not None, "an answer that was wanted settles its job"
        elif entry.delayed and entry.ending is None:
            entry.retries -= 1

    def lose(self, worker: FakeWorker) -> None:
        del self.workers[worker.number]
        running = worker.running
        for job_id in list(worker.held):
            entry = self.jobs[job_id]
            blamed = job_id == running and entry.ending is None
            if blamed and not worker.ending:
                entry.kills += 1
                deaths, last = self.deaths.get(entry.record.terms.cost, (0, self.now))
                if deaths < MAX_DEATHS and self.now - last > ROW:
                    deaths = 0
                self.deaths[entry.record.terms.cost] = deaths + 1, self.now
            self.let_go(worker, job_id, returned=True)
            entry.delayed = blamed and entry.kills > 1
        self.tell("worker_lost", worker.number, running, "detail")
        if running is not None:
            entry = self.jobs[running]
            assert entry.kills == entry.record.kills
            if entry.ending is None:
                assert entry.retries > 0, "it had no further attempt"
                assert entry.delayed == (entry.record.state is JobState.DELAYED)
                entry.retries -= 1

    def let_go(self, worker: FakeWorker, job_id: int, returned: bool = False) -> None:
        """Note that the worker has answered for a job."""
        if job_id == next(iter(worker.held), None):
            worker.head_since = self.now
        if worker.held.pop(job_id, None) is None:
            assert worker.ending, "only one that leaves speaks of a job twice"
            return
        entry = self.jobs[job_id]
        entry.holder = None
        entry.returned = returned
        if worker.interrupted == job_id:
            worker.interrupted = None
            worker.grace_over = worker.patience_over = inf

    # Judgement

    def judge_SendJobs(self, command: SendJobs) -> None:
        assert command.jobs
        for job in command.jobs:
            self.judge_sent(self.workers[command.worker], job)

    def judge_sent(self, worker: FakeWorker, job: JobRecord) -> None:
        entry = self.jobs[job.id]
        assert worker.usable, "sent to a worker that should get nothing"
        assert entry.ending is None, "sent after its ending"
        assert entry.holder is None, "sent while another worker has it"
        assert entry.record.deadline > self.now, "sent out of time"
        if not worker.held:
            worker.head_since = self.now
            worker.recalled.clear()
        charge = max(entry.record.terms.cost.estimate, 1e-6)
        worker.held[job.id] = inf if job.terms.on_cancel == "kill" else charge
        assert len(worker.held) <= self.max_credit
        if len(worker.held) > 1:
            together = sum(worker.held.values())
            assert together <= PAIR * 1.000001, "over credit"
            if together > WINDOW * 1.000001:
                assert len(worker.held) == 2, "over credit"
                if self.thorough:
                    self.judge_plenty()
        self.judge_limit(entry)
        if self.thorough:
            self.judge_turn(entry)
        if not entry.sent:
            self.judge_fresh_turn(entry)
        entry.sent += 1
        entry.holder = worker.number
        entry.returned = entry.delayed = False
        worker.inbound.append(("job", job.id))

    def judge_plenty(self) -> None:
        waiting = [e for e in self.jobs.values() if not (e.ending or e.holder)]
        assert len(waiting) > len(self.workers), "ready for want of better"

    def judge_limit(self, entry: Entry) -> None:
        limit = entry.record.terms.limit
        if limit is not None:
            assert self.running_of(limit) <= limit.most, "over its function's limit"

    def running_of(self, limit: ConcurrencyLimit) -> int:
        held = [job for worker in self.workers.values() for job in worker.held]
        return sum(self.jobs[job].record.terms.limit is limit for job in held)

    def judge_turn(self, entry: Entry) -> None:
        if self.now - entry.submitted_at > PATIENCE:
            return  # one of a few turns is for those who have waited long
        priority = entry.record.terms.priority
        for other in self.jobs.values():
            if other.waits and other is not entry and self.in_queue(other):
                assert other.record.terms.priority <= priority, (
                    "passed a higher priority"
                )
                fresh = not entry.sent and entry.record.terms.limit is None
                if fresh and other.record.terms.priority == priority:
                    assert not other.returned, "passed one that came back"

    def in_queue(self, entry: Entry) -> bool:
        """Tell whether it could be sent when this fact came."""
        limit = entry.record.terms.limit
        return (
            entry.record.deadline > self.now
            and entry.record.id not in self.held_back
            and (limit is None or self.running_of(limit) < limit.most)
        )

    def judge_fresh_turn(self, entry: Entry) -> None:
        line = self.fresh[entry.kind]
        while line[0].ending is not None:
            line.popleft()
        assert line[0] is entry, "not first come, first served"
        line.popleft()

    def judge_SettleResults(self, command: SettleResults) -> None:
        assert command.results
        told = [answer[0] for answer in self.fact[2]]
        settled = [job.id for job, _ in command.results]
        assert settled == [number for number in told if number in settled]
        for job, detail in command.results:
            entry = self.jobs[job.id]
            assert entry.ending is None, "settled twice"
            assert detail == "result"
            entry.ending = Ending.RESULT

    def judge_Settle(self, command: Settle) -> None:
        entry = self.jobs[command.job.id]
        assert entry.ending is None, "settled twice"
        entry.ending = command.ending
        record, (fact, *args) = entry.record, self.fact
        judgement = {
            Ending.ERROR: fact == "job_failed" and args[1] == record.id,
            Ending.CANCELLED: (fact == "job_cancelled" and args[0] == record.id)
            or fact == "cancel_all",
            Ending.TIMEOUT: record.deadline <= self.now,
            Ending.RUN_TIMEOUT: fact == "time_passed"
            and entry.holder is not None
            and record.sent_at + record.terms.run_timeout <= self.now,
            Ending.LOST: fact == "worker_lost"
            and args[1] == record.id
            and (entry.retries == 0 or self.is_suspect(record) or self.is_late(entry))
            and entry.kills < MAX_KILLS,
            Ending.QUARANTINED: self.is_suspect(record) and entry.holder is None,
            Ending.POISON: fact == "worker_lost"
            and args[1] == record.id
            and entry.kills >= MAX_KILLS,
        }
        assert judgement[command.ending], (command, self.fact)
        assert command.ending is not Ending.ERROR or command.detail == "error"

    def is_suspect(self, record: JobRecord) -> bool:
        return self.deaths.get(record.terms.cost, (0, 0.0))[0] >= MAX_DEATHS

    def is_late(self, entry: Entry) -> bool:
        """Tell whether its next attempt may begin after its deadline."""
        return entry.delayed and entry.record.deadline < self.now + LONGEST_DELAY

    def judge_RecallJobs(self, command: RecallJobs) -> None:
        worker = self.workers[command.worker]
        assert command.jobs
        assert set(command.jobs) <= set(worker.held)
        assert not worker.ending
        worker.recalled.update(command.jobs)
        worker.inbound.append(("recall", command.jobs))

    def judge_InterruptJob(self, command: InterruptJob) -> None:
        worker, entry = self.workers[command.worker], self.jobs[command.job]
        assert command.job in worker.held
        assert entry.ending is not None, "only what was settled is stopped"
        finish = entry.record.terms.on_cancel == "finish"
        assert not (entry.ending is Ending.CANCELLED and finish)
        worker.target = command.job
        if entry.record.closes:
            assert worker.interrupted == command.job, "it was not asked to close"
            assert worker.patience_over <= self.now
            worker.patience_over = inf
            return
        assert worker.interrupted is None
        worker.interrupted = command.job
        worker.grace_over = self.now + GRACE

    def judge_CloseJob(self, command: CloseJob) -> None:
        worker, entry = self.workers[command.worker], self.jobs[command.job]
        assert entry.record.closes
        assert command.job in worker.held
        assert entry.ending is not None, "only what was settled is stopped"
        finish = entry.record.terms.on_cancel == "finish"
        assert not (entry.ending is Ending.CANCELLED and finish)
        assert worker.interrupted is None
        worker.interrupted = command.job
        worker.patience_over = self.now + GRACE / 2
        worker.grace_over = self.now + GRACE

    def judge_KillWorker(self, command: KillWorker) -> None:
        worker = self.workers[command.worker]
        head = self.jobs[next(iter(worker.held))] if worker.held else None
        asked = (
            head is not None
            and head.ending is Ending.CANCELLED
            and head.record.terms.on_cancel == "kill"
        )
        assert asked or worker.grace_over <= self.now, "killed without a reason"
        worker.ending = True
        worker.grace_over = inf
        worker.die()

    def judge_StopWorker(self, command: StopWorker) -> None:
        worker = self.workers[command.worker]
        assert worker.retired
        assert not worker.ending
        assert not worker.held
        worker.ending = True
        worker.grace_over = self.now + LEAVE_TIME
        worker.inbound.append(("stop", None))

    def judge_head(self, worker: FakeWorker) -> None:
        """A job that runs and is not wanted was told to stop, if it is to stop."""
        if worker.ending or not worker.held:
            return
        head = self.jobs[next(iter(worker.held))]
        may_finish = head.record.terms.on_cancel == "finish"
        if head.ending and not (head.ending is Ending.CANCELLED and may_finish):
            assert worker.interrupted == head.record.id, "it runs on for nobody"

    def judge_patience(self, worker: FakeWorker) -> None:
        """A run stays within its limit, and nobody waits long behind it."""
        if worker.ending or not worker.held:
            return
        first, *rest = (self.jobs[job_id] for job_id in worker.held)
        ran = self.now - worker.head_since
        if first.ending is None:
            assert ran < first.record.terms.run_timeout * 1.000001, "over its limit"
        if ran > 10 * WINDOW:
            waiting = {one.record.id for one in rest if one.ending is None}
            assert waiting <= worker.recalled, "stuck behind a long one"

    def judge_idle_hands(self) -> None:
        hands = [one for one in self.workers.values() if one.usable and not one.held]
        work = [
            entry
            for entry in self.jobs.values()
            if entry.waits
            and entry.record.state is JobState.QUEUED
            and self.in_queue(entry)
        ]
        assert not (hands and work), "a job waits while a worker has none"

    # The end

    def run_to_the_end(self) -> None:
        """Let everything happen that is due; nothing may wait for ever."""
        for _ in range(500):
            if self.scheduler.idle:
                return
            if not any(worker.usable for worker in self.workers.values()):
                self.start_worker()
            for worker in list(self.workers.values()):
                while worker.inbound and not worker.gone:
                    worker.receive()
                worker.notice()
                worker.work()
                worker.answer(True, 1e-5)
                while worker.outbound:
                    self.deliver(worker)
                self.deliver(worker)
            self.pass_time(0.002)
        raise AssertionError(f"these never end: {list(self.scheduler._jobs)}")

    def close(self) -> None:
        """End everything, and look for what was forgotten."""
        self.cancel_all()
        for worker in list(self.workers.values()):
            worker.die()
            while worker.number in self.workers:
                self.deliver(worker)
        assert self.scheduler.idle
        assert self.scheduler.next_due() is None
        stats = self.scheduler.stats()
        assert (stats.queued, stats.delayed, stats.sent, stats.workers) == (0, 0, 0, 0)
        assert (stats.parked, stats.size) == (0, 0)
        assert all(entry.ending is not None for entry in self.jobs.values())
        assert self.scheduler._ledger.queue.waiting == 0
        assert self.scheduler._roster.room == 0
        self.scheduler.check()
