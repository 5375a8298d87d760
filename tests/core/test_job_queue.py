"""Jobs that wait: order, cancellation and memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.core.job import JobRecord, JobState
from offloop.core.job_queue import JobQueue
from offloop.core.policies import RunTime

COST = RunTime()


def make(job_id: int, priority: int = 0) -> JobRecord:
    return JobRecord(job_id, COST, priority=priority)


def take(queue: JobQueue) -> JobRecord:
    job = queue.first()
    job.move(JobState.SENT)
    queue.pop_first()
    return job


def cancel(queue: JobQueue, job: JobRecord) -> None:
    job.move(JobState.CANCELLED)
    queue.discard(job)


def take_all(queue: JobQueue) -> list[int]:
    taken = []
    while queue.waiting:
        taken.append(take(queue).id)
    return taken


def test_first_come_first_served():
    queue = JobQueue()
    for number in (5, 3, 4):
        queue.push(make(number))
    assert take_all(queue) == [5, 3, 4]


def test_higher_priority_goes_first():
    queue = JobQueue()
    for number, priority in [(1, 0), (2, 10), (3, -1), (4, 10)]:
        queue.push(make(number, priority))
    assert take_all(queue) == [2, 4, 1, 3]


def test_looking_at_the_first_leaves_it_there():
    queue = JobQueue()
    queue.push(make(1))
    assert queue.first() is queue.first()
    assert queue.waiting == 1


def test_what_came_back_stands_before_what_never_left_in_order_of_number():
    queue = JobQueue()
    queue.push(make(7))
    for number in (4, 2, 3):
        queue.push_front(make(number))
    assert take_all(queue) == [2, 3, 4, 7]


def test_what_came_back_does_not_pass_a_higher_priority():
    queue = JobQueue()
    queue.push(make(7, priority=1))
    queue.push_front(make(2))
    assert take_all(queue) == [7, 2]


@pytest.mark.parametrize("cancelled", [1, 2, 3])
def test_a_cancelled_job_never_gets_its_turn(cancelled):
    queue = JobQueue()
    jobs = {number: make(number) for number in (1, 2, 3)}
    queue.push(jobs[2])
    queue.push(jobs[3])
    queue.push_front(jobs[1])
    cancel(queue, jobs[cancelled])
    assert queue.waiting == 2
    assert take_all(queue) == sorted(set(jobs) - {cancelled})
    queue.check()


def test_a_million_cancelled_jobs_leave_nothing_behind():
    queue = JobQueue()
    queue.push(make(0))
    for number in range(1, 30_000):
        job = make(number, priority=number % 7)
        queue.push(job) if number % 2 else queue.push_front(job)
        cancel(queue, job)
    queue.check()
    levels = queue._levels.values()
    assert sum(len(level.line) + len(level.returned) for level in levels) <= 1 + 65
    assert take_all(queue) == [0]


def test_priorities_that_nobody_uses_any_more_are_forgotten():
    queue = JobQueue()
    for number in range(1000):
        queue.push(make(number, priority=number))
        take(queue)
    assert not queue._levels
    assert not queue._priorities


steps = st.lists(
    st.tuples(
        st.sampled_from(["push", "push_front", "take", "cancel"]), st.integers(0, 3)
    ),
    max_size=300,
)


@given(steps)
def test_it_behaves_like_a_sorted_list(moves):
    queue, model, number = JobQueue(), [], 0
    for what, arg in moves:
        if what in ("push", "push_front"):
            number += 1
            job = make(number, arg)
            fresh = what == "push"
            (queue.push if fresh else queue.push_front)(job)
            model.append(((-arg, fresh, number), job))
            model.sort(key=lambda entry: entry[0])
        elif what == "take" and model:
            assert take(queue) is model.pop(0)[1]
        elif what == "cancel" and model:
            cancel(queue, model.pop(arg % len(model))[1])
        queue.check()
        assert queue.jobs() == [job for _, job in model]
