"""The scheduler among workers that answer late, crash and leave, in any order."""

from __future__ import annotations

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from core.fake_workers import World
from offloop.core.limits import ConcurrencyLimit
from offloop.core.policies import OwnRun, RunTime

INF = float("inf")


class SchedulerModel(RuleBasedStateMachine):
    """Every step is one event; the world's referee judges every command."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.world.start_worker()
        self.short, self.middle, self.unknown = RunTime(), RunTime(), RunTime()
        self.alone = OwnRun()
        self.limits = {"one": ConcurrencyLimit(1), "two": ConcurrencyLimit(2)}
        for _ in range(8):
            self.short.observe(1e-5)
            self.middle.observe(4e-4)

    def worker(self, index: int):
        workers = list(self.world.workers.values())
        return workers[index % len(workers)]

    @rule(
        cost=st.sampled_from(["short", "short", "middle", "unknown"]),
        priority=st.integers(0, 2),
        retries=st.integers(0, 3),
        deadline=st.sampled_from([INF, INF, INF, 0.0, 0.005, 0.3, 2.0]),
        run_timeout=st.sampled_from([INF, INF, 0.008, 0.5]),
        on_cancel=st.sampled_from(["stop", "stop", "kill", "finish"]),
        key=st.sampled_from([None, None, "a", "b"]),
        limit=st.sampled_from([None, None, "one", "two"]),
        size=st.integers(0, 3),
    )
    def submit(self, cost, deadline, limit, **options):
        cost = getattr(self, cost)
        deadline += self.world.now
        limit = self.limits.get(limit)
        self.world.submit(cost, deadline=deadline, limit=limit, **options)

    @rule(
        count=st.integers(2, 5),
        key=st.sampled_from([None, None, "a"]),
        limit=st.sampled_from([None, None, "two"]),
    )
    def submit_short_ones(self, count, key, limit):
        for _ in range(count):
            self.world.submit(self.short, key=key, limit=self.limits.get(limit))

    @rule(
        cost=st.sampled_from(["short", "unknown"]),
        priority=st.integers(0, 2),
        deadline=st.sampled_from([INF, INF, 0.0, 0.3]),
    )
    def submit_to_be_sent_with_others(self, cost, deadline, priority):
        cost, deadline = getattr(self, cost), self.world.now + deadline
        self.world.submit(cost, hold=True, deadline=deadline, priority=priority)

    @rule(
        retries=st.integers(0, 2),
        deadline=st.sampled_from([INF, INF, 0.005, 0.3]),
        on_cancel=st.sampled_from(["stop", "stop", "kill", "finish"]),
    )
    def submit_one_that_rests(self, deadline, **options):
        deadline += self.world.now
        self.world.submit(self.alone, rests=True, deadline=deadline, **options)

    @precondition(lambda self: self.world.workers)
    @rule(index=st.integers(0, 3))
    def give_a_part(self, index):
        worker = self.worker(index)
        if worker.running is not None and self.world.jobs[worker.running].record.closes:
            worker.give_a_part()

    @rule()
    def release(self):
        self.world.release()

    @rule(data=st.data())
    def cancel(self, data):
        pending = [key for key, job in self.world.jobs.items() if job.ending is None]
        if pending:
            self.world.cancel(data.draw(st.sampled_from(pending)))

    @rule(data=st.data())
    def cancel_what_a_worker_has(self, data):
        jobs = self.world.jobs.values()
        held = [one.record.id for one in jobs if one.holder and one.ending is None]
        if held:
            self.world.cancel(data.draw(st.sampled_from(held)))

    @rule(unlikely=st.integers(0, 9))
    def cancel_everything(self, unlikely):
        if not unlikely:
            self.world.cancel_all()

    @precondition(lambda self: len(self.world.workers) < 4)
    @rule()
    def start_worker(self):
        self.world.start_worker()

    @precondition(lambda self: self.world.workers)
    @rule(index=st.integers(0, 3))
    def retire(self, index):
        self.world.retire(self.worker(index))

    @precondition(lambda self: self.world.workers)
    @rule(index=st.integers(0, 3))
    def crash(self, index):
        self.worker(index).die()

    @precondition(lambda self: self.world.workers)
    @rule(index=st.integers(0, 3), count=st.integers(1, 4))
    def receive(self, index, count):
        for _ in range(count):
            self.worker(index).receive()

    @precondition(lambda self: self.world.workers)
    @rule(index=st.integers(0, 3))
    def receive_and_begin(self, index):
        self.worker(index).receive()
        self.worker(index).work()

    @precondition(lambda self: self.world.workers)
    @rule(
        index=st.integers(0, 3),
        ok=st.booleans(),
        run_time=st.sampled_from([1e-6, 1e-5, 3e-4, 0.02]),
        retryable=st.booleans(),
    )
    def answer_and_go_on(self, index, ok, run_time, retryable):
        self.worker(index).answer(ok, run_time, retryable)
        self.worker(index).work()

    @precondition(lambda self: self.world.workers)
    @rule(index=st.integers(0, 3), returned_last=st.booleans())
    def notice_an_interrupt(self, index, returned_last):
        self.worker(index).notice(returned_last)

    @precondition(lambda self: self.world.workers)
    @rule(
        index=st.integers(0, 3),
        jobs=st.integers(0, 3),
        run_time=st.sampled_from([1e-5, 3e-4, 0.02]),
    )
    def work_and_be_heard(self, index, jobs, run_time):
        worker = self.worker(index)
        while worker.inbound and not worker.gone:
            worker.receive()
        for _ in range(jobs):
            worker.work()
            worker.answer(True, run_time)
        worker.work()
        while worker.outbound:
            self.world.deliver_results(worker)
            if worker.outbound:
                self.world.deliver(worker)

    @rule(seconds=st.sampled_from([0.0001, 0.004, 0.011, 0.3]))
    def let_time_pass_unnoticed(self, seconds):
        self.world.now += seconds

    @precondition(lambda self: self.world.workers)
    @rule(index=st.integers(0, 3), count=st.integers(1, 4))
    def deliver(self, index, count):
        for _ in range(count):
            if self.world.workers:
                self.world.deliver(self.worker(index))

    @rule(seconds=st.sampled_from([0.0001, 0.004, 0.011, 0.11, 0.25, 3.0]))
    def pass_time(self, seconds):
        self.world.pass_time(seconds)

    def teardown(self):
        self.world.run_to_the_end()
        self.world.close()


TestSchedulerModel = pytest.mark.slow(SchedulerModel.TestCase)
TestSchedulerModel.settings = settings(
    max_examples=120, stateful_step_count=60, deadline=None
)


@pytest.mark.slow
def test_a_thousand_workers_do_a_hundred_thousand_jobs():
    """Every job ends once, in order of arrival, whoever crashes in between."""
    dice = random.Random(7)
    world = World(thorough=False, max_credit=64)
    costs = [RunTime() for _ in range(3)]
    lengths = [1e-5, 1e-4, 0.02]
    for _ in range(1000):
        world.start_worker()
    for number in range(100_000):
        which = number % 3
        job_id = world.submit(costs[which], retries=1)
        if number % 1000 == 0:
            world.cancel(job_id)
        if number % 50 == 0:
            world.pass_time(0.0005)
        worker = world.workers.get(dice.randint(1, world.last_worker))
        if worker is not None:
            run(world, worker, lengths)
            if number % 2000 == 0:
                worker.die()
                world.start_worker()
    while not world.scheduler.idle:
        for worker in list(world.workers.values()):
            run(world, worker, lengths)
        world.pass_time(0.05)
    world.close()
    stats = world.scheduler.stats()
    assert stats.submitted == 100_000
    assert stats.completed + stats.cancelled + stats.lost == 100_000
    assert stats.cancelled == 100


def run(world: World, worker, lengths: list[float]) -> None:
    """Let one worker take its messages, do all its jobs, and be heard."""
    while worker.inbound and not worker.gone:
        worker.receive()
    worker.notice()
    worker.work()
    while worker.running is not None and not worker.gone:
        worker.answer(True, lengths[worker.running % 3])
        worker.work()
    while worker.outbound or (worker.gone and worker.number in world.workers):
        world.deliver(worker)
