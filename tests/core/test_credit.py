"""Which worker gets the next job, and how many jobs one may hold."""

from __future__ import annotations

from collections import Counter
from math import inf

from offloop.core.credit import Roster, WorkerRecord, charge_of
from offloop.core.job import JobRecord, JobState, Terms
from offloop.core.policies import RunTime

WINDOW = 0.001


def cost_of(seconds: float) -> RunTime:
    cost = RunTime()
    for _ in range(8):
        cost.observe(seconds)
    return cost


class Pool:
    """A roster with workers, and jobs that are given away and answered at will."""

    def __init__(self, workers: int, max_credit: int = 64) -> None:
        self.roster = Roster(max_credit, WINDOW)
        self.workers = {n: WorkerRecord(n) for n in range(1, workers + 1)}
        for worker in self.workers.values():
            self.roster.open(worker)
        self.jobs = 0

    def give(
        self, seconds: float = inf, now: float = 0.0, *, plenty: bool = False
    ) -> int | None:
        """Give a job of that length away; returns the worker's number."""
        self.jobs += 1
        terms = Terms(cost_of(seconds) if seconds != inf else RunTime())
        job = JobRecord(self.jobs, terms)
        worker = self.roster.pick(charge_of(terms), now, plenty)
        if worker is None:
            return None
        job.charge = charge_of(terms)
        worker.inbox[job.id] = job
        worker.load += job.charge
        self.roster.file(worker)
        job.move(JobState.SENT)
        if worker.head() is job:
            worker.head_since = now
        self.check()
        return worker.number

    def answer(self, number: int) -> None:
        worker = self.workers[number]
        assert self.roster.take(worker, worker.head().id) is not None
        self.check()

    def check(self) -> None:
        self.roster.check(self.workers)


def test_without_workers_nobody_is_chosen():
    assert Pool(0).give() is None


def test_each_idle_worker_gets_one_job_of_unknown_length():
    pool = Pool(3)
    assert {pool.give() for _ in range(3)} == {1, 2, 3}
    assert pool.give() is None
    assert pool.roster.idle == 0


def test_a_worker_that_became_idle_gets_the_next_job():
    pool = Pool(3)
    for _ in range(3):
        pool.give()
    pool.answer(2)
    assert pool.give() == 2


def test_no_worker_gets_its_second_job_before_all_have_their_first():
    pool = Pool(4)
    for held in range(1, 6):
        counts = Counter(pool.give(1e-5) for _ in range(4))
        assert counts == {1: 1, 2: 1, 3: 1, 4: 1}, held


def test_the_window_bounds_what_one_inbox_holds():
    pool = Pool(1)
    given = [pool.give(0.0003) for _ in range(5)]
    assert given == [1, 1, 1, None, None]
    pool.answer(1)
    assert pool.give(0.0003) == 1


def test_credit_bounds_the_shortest_jobs():
    pool = Pool(1, max_credit=5)
    assert [pool.give(0.0) for _ in range(6)] == [1] * 5 + [None]
    assert pool.roster.room == 0


def test_with_a_credit_of_one_nothing_is_shared():
    pool = Pool(2, max_credit=1)
    assert {pool.give(0.0), pool.give(0.0)} == {1, 2}
    assert pool.give(0.0) is None


def test_a_long_job_shares_with_nobody():
    pool = Pool(1)
    assert pool.give(0.5) == 1
    assert pool.give(1e-5) is None


def test_while_there_is_plenty_to_do_the_next_job_is_ready_behind_one_of_some_length():
    pool = Pool(1)
    assert pool.give(0.002) == 1
    assert pool.give(0.002) is None
    assert pool.give(0.002, plenty=True) == 1
    assert pool.give(0.002, plenty=True) is None, "one is enough"
    pool.answer(1)
    assert pool.give(0.009, plenty=True) is None, "too long for company"
    assert pool.give(0.007, plenty=True) == 1


def test_an_unknown_job_does_not_go_behind_short_ones():
    pool = Pool(1)
    pool.give(1e-5)
    assert pool.give(inf) is None
    assert pool.give(1e-5) == 1, "the refusal must not cost the worker its place"


def test_nothing_goes_behind_a_job_that_runs_surprisingly_long():
    pool = Pool(2)
    slow, other = pool.give(1e-5), pool.give(1e-5, now=0.02)
    assert {slow, other} == {1, 2}
    assert [pool.give(1e-5, now=0.02) for _ in range(3)] == [other] * 3
    assert pool.workers[slow].slow
    assert pool.workers[slow].closed


def test_when_all_are_slow_nobody_is_chosen():
    pool = Pool(2)
    assert {pool.give(1e-5), pool.give(1e-5)} == {1, 2}
    assert pool.give(1e-5, now=1.0) is None
    assert pool.roster.room == 0


def test_a_closed_worker_gets_nothing_until_it_is_open_again():
    pool = Pool(1)
    worker = pool.workers[1]
    pool.roster.close(worker)
    pool.roster.close(worker)
    assert pool.give() is None
    pool.check()
    pool.roster.open(worker)
    assert pool.give() == 1


def test_an_inbox_that_empties_is_as_good_as_new():
    pool = Pool(1)
    for _ in range(1000):
        pool.give(1e-5)
        pool.give(3e-5)
        pool.answer(1)
        pool.answer(1)
    assert pool.workers[1].load == 0.0


def test_a_job_that_is_not_there_cannot_be_taken():
    pool = Pool(1)
    assert pool.roster.take(pool.workers[1], 99) is None


def test_a_job_whose_cancellation_kills_has_its_worker_for_itself():
    assert charge_of(Terms(cost_of(1e-5), on_cancel="kill")) == inf
    assert charge_of(Terms(cost_of(1e-5), on_cancel="stop")) < WINDOW


def test_the_rest_of_an_inbox_are_the_wanted_jobs_behind_the_first():
    pool = Pool(1)
    for _ in range(4):
        pool.give(1e-5)
    worker = pool.workers[1]
    worker.inbox[3].move(JobState.CANCELLED)
    assert worker.head().id == 1
    assert worker.rest() == [2, 4]
