"""Jobs that wait: order, cancellation and memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.core.job import JobRecord, JobState, Terms
from offloop.core.job_queue import JobQueue
from offloop.core.policies import RunTime

COST = RunTime()
NOW = 5.0


def make(job_id: int, priority: int = 0, key=None) -> JobRecord:
    job = JobRecord(job_id, Terms(COST, priority, key=key))
    job.submitted_at = NOW
    return job


def take(queue: JobQueue) -> JobRecord:
    job = queue.first(NOW)
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


def test_what_is_upcoming_ends_before_one_that_has_ended():
    queue = JobQueue()
    waiting = [make(number) for number in range(1, 6)]
    for job in waiting:
        queue.push(job)
    cancel(queue, waiting[2])
    queue.first(NOW)
    assert queue.upcoming(4) == waiting[:2]


def test_looking_at_the_first_leaves_it_there():
    queue = JobQueue()
    queue.push(make(1))
    assert queue.first(NOW) is queue.first(NOW)
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


def test_of_sixteen_turns_one_is_for_the_job_that_has_waited_too_long():
    queue = JobQueue()
    old, older = make(1, priority=-3), make(2, priority=-5)
    old.submitted_at, older.submitted_at = NOW - 11, NOW - 12
    queue.push(old)
    queue.push(older)
    for number in range(10, 100):
        job = make(number, priority=5)
        job.submitted_at = NOW - 13 if number == 10 else NOW
        queue.push(job)
    order = [take(queue).id for _ in range(40)]
    queue.check()
    assert order[0] == 10
    assert (order.index(2), order.index(1)) == (15, 31)


def test_who_has_not_waited_long_is_passed_by_higher_priorities():
    queue = JobQueue()
    queue.push(make(1, priority=-3))
    for number in range(10, 100):
        queue.push(make(number, priority=5))
    assert [take(queue).id for _ in range(90)] == list(range(10, 100))
    assert take(queue).id == 1


def test_one_that_starved_and_has_ended_is_dropped():
    queue = JobQueue()
    old = make(1, priority=-3)
    old.submitted_at = NOW - 11
    queue.push(old)
    for number in range(10, 60):
        job = make(number, priority=5)
        job.submitted_at = NOW
        queue.push(job)
    taken = [take(queue).id for _ in range(15)]
    cancel(queue, old)
    taken += [take(queue).id for _ in range(35)]
    assert taken == list(range(10, 60))
    queue.check()
    assert not queue._levels


def test_keys_take_turns_within_a_priority():
    queue = JobQueue()
    for number in range(1, 4):
        queue.push(make(number))
    for number in range(4, 7):
        queue.push(make(number, key="b"))
    urgent = make(7, priority=1, key="b")
    queue.push(urgent)
    queue.check()
    assert take_all(queue) == [7, 1, 4, 2, 5, 3, 6]


def test_cancelled_jobs_of_many_keys_leave_nothing_behind():
    queue = JobQueue()
    for number in range(1, 2000):
        if number % 20 == 0:
            queue.push(make(number, key=number % 7))
        job = make(number, key=number)
        queue.push(job) if number % 2 else queue.push_front(job)
        cancel(queue, job)
        queue.check()
    assert len(take_all(queue)) == 99


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
