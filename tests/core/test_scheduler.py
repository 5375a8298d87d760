"""Facts in, commands out: one behaviour of the scheduler per test.

Workers 1, 2, ... are ready from the start where a test asks for them. A job is of a
function that nobody has seen yet, and so has its worker for itself, unless it is
`short`.
"""

from __future__ import annotations

import dataclasses
from math import inf

import pytest

from core.fake_workers import Resting
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
from offloop.core.exits import ExitReason
from offloop.core.job import Ending, JobRecord, JobState, Terms
from offloop.core.limits import ConcurrencyLimit
from offloop.core.policies import RunTime
from offloop.core.scheduler import Scheduler
from offloop.errors import InternalError, PoolFull

# Times whose sums are exact, so that a test may stand at the very moment.
GRACE = 0.25
LEAVE_TIME = 3.0
WINDOW = 1 / 1024
PATIENCE = 10 * WINDOW


def short_cost() -> RunTime:
    cost = RunTime()
    for _ in range(8):
        cost.observe(1e-5)
    return cost


class Machine:
    """A scheduler with ready workers and a clock that stands; each call is a fact."""

    def __init__(self, workers: int = 0, **options) -> None:
        self.scheduler = Scheduler(
            grace=GRACE, leave_time=LEAVE_TIME, window=WINDOW, **options
        )
        self.now = 100.0
        for number in range(1, workers + 1):
            assert self.scheduler.worker_ready(number, self.now) == []

    def __getattr__(self, fact):
        """Tell the scheduler a fact of that name, now, and look at it afterwards."""

        def tell(*args):
            commands = getattr(self.scheduler, fact)(*args, self.now)
            self.scheduler.check()
            return commands and one_by_one(commands)

        return tell

    def job_finished(self, worker, job_id, result, run_time):
        return self.jobs_finished(worker, [(job_id, result, run_time)])

    def make(
        self, *, short=False, kind=JobRecord, key=None, limit=None, size=0, **options
    ) -> JobRecord:
        cost = short_cost() if short else RunTime()
        deadline = options.pop("deadline", inf)
        terms = Terms(cost, key=key, limit=limit, **options)
        job = kind(self.scheduler.next_id(), terms, deadline=deadline)
        job.size = size
        return job

    def submit(self, **options) -> JobRecord:
        job = self.make(**options)
        self.job_submitted(job)
        return job

    def submit_many(self, count: int, **options) -> list[JobRecord]:
        return [self.submit(**options) for _ in range(count)]

    def wait(self, seconds: float):
        self.now += seconds
        return self.time_passed()

    @property
    def stats(self):
        return self.scheduler.stats()


def one_by_one(commands):
    """Show results that are settled together as if each had a command of its own."""
    shown = []
    for command in commands:
        if isinstance(command, SettleResults):
            shown += [settled(job, Ending.RESULT, one) for job, one in command.results]
        else:
            shown.append(command)
    return shown


def settled(job: JobRecord, ending: Ending, detail=None) -> Settle:
    return Settle(job, ending, detail)


# Sending


def test_a_job_goes_to_an_idle_worker_at_once():
    machine = Machine(1)
    job = machine.make()
    assert machine.job_submitted(job) == [SendJobs(1, [job])]
    assert job.state is JobState.SENT
    assert job.worker == 1
    assert job.submitted_at == job.sent_at == machine.now


def test_without_a_worker_it_waits_for_one():
    machine = Machine()
    job = machine.make()
    assert machine.job_submitted(job) == []
    assert job.state is JobState.QUEUED
    assert machine.worker_ready(1) == [SendJobs(1, [job])]


def test_a_result_settles_its_job_and_brings_the_next():
    machine = Machine(1)
    first, second = machine.submit_many(2)
    assert machine.job_finished(1, first.id, "result", 0.5) == [
        settled(first, Ending.RESULT, "result"),
        SendJobs(1, [second]),
    ]
    assert first.state is JobState.DONE
    assert (first.attempts, first.run_time, first.worker) == (1, 0.5, 1)
    assert first.returned_at == machine.now


def test_each_worker_gets_one_job_of_a_function_that_is_not_known():
    machine = Machine(2)
    jobs = machine.submit_many(3)
    assert {jobs[0].worker, jobs[1].worker} == {1, 2}
    assert jobs[2].state is JobState.QUEUED


def test_short_jobs_share_a_worker():
    machine = Machine(1)
    jobs = machine.submit_many(3, short=True)
    assert [job.worker for job in jobs] == [1, 1, 1]


def test_the_higher_priority_is_sent_first():
    machine = Machine(1)
    running, low, high = [machine.submit(priority=p) for p in (0, 0, 5)]
    assert SendJobs(1, [high]) in machine.job_finished(1, running.id, None, 0.1)
    assert SendJobs(1, [low]) in machine.job_finished(1, high.id, None, 0.1)


def test_a_job_that_passes_the_others_may_be_sent_at_once():
    machine = Machine(1)
    machine.submit(short=True)
    blocked = machine.submit()
    urgent = machine.make(short=True, priority=1)
    assert blocked.state is JobState.QUEUED
    assert machine.job_submitted(urgent) == [SendJobs(1, [urgent])]


def test_a_short_job_does_not_pass_one_that_needs_a_worker_for_itself():
    machine = Machine(1)
    running, blocked, later = (machine.submit(short=s) for s in (True, False, True))
    assert later.state is JobState.QUEUED
    assert SendJobs(1, [blocked]) in machine.job_finished(1, running.id, None, 1e-5)


def test_cancelling_the_first_lets_the_next_take_the_room():
    machine = Machine(1)
    machine.submit(short=True)
    blocked = machine.submit()
    later = machine.submit(short=True)
    assert machine.job_cancelled(blocked.id) == [
        settled(blocked, Ending.CANCELLED),
        SendJobs(1, [later]),
    ]


def test_nothing_is_sent_behind_a_job_that_runs_surprisingly_long():
    machine = Machine(1)
    machine.submit(short=True)
    machine.now += 2 * PATIENCE
    later = machine.submit(short=True)
    assert later.state is JobState.QUEUED


def test_learns_how_long_the_function_takes():
    machine = Machine(1)
    cost = RunTime()
    for _ in range(8):
        job = JobRecord(machine.scheduler.next_id(), Terms(cost))
        machine.job_submitted(job)
        machine.job_finished(1, job.id, None, 1e-5)
    jobs = [JobRecord(machine.scheduler.next_id(), Terms(cost)) for _ in range(2)]
    for job in jobs:
        machine.job_submitted(job)
    assert [job.worker for job in jobs] == [1, 1]


# Room


def test_a_full_pool_refuses_and_says_what_to_do():
    machine = Machine(1, max_pending=2)
    machine.submit_many(2)
    assert machine.scheduler.room == 0
    late = machine.make()
    with pytest.raises(PoolFull, match="2 jobs are pending and max_pending is 2") as e:
        machine.job_submitted(late)
    assert (e.value.pending, e.value.limit, e.value.retry_after) == (2, 2, None)
    assert machine.stats.submitted == 2
    with pytest.raises(PoolFull, match="raise max_pending"):
        machine.check_room()


def test_there_is_room_again_when_a_job_has_ended():
    machine = Machine(1, max_pending=1)
    job = machine.submit()
    machine.job_finished(1, job.id, None, 0.1)
    machine.check_room()
    assert machine.scheduler.room > 0
    machine.submit()


def test_a_full_pool_tells_when_to_come_back():
    machine = Machine(1, max_pending=3)
    first, _, _ = machine.submit_many(3)
    machine.now += 2.0
    machine.job_finished(1, first.id, None, 2.0)
    machine.submit()
    with pytest.raises(PoolFull, match="again in about 2 s") as caught:
        machine.check_room()
    assert caught.value.retry_after == 2.0


def test_without_a_limit_there_is_always_room():
    machine = Machine()
    machine.submit_many(100)
    machine.check_room()
    assert machine.scheduler.room > 0
    assert machine.scheduler.pending == 100


# Errors and retries


def test_an_error_settles_its_job():
    machine = Machine(1)
    job = machine.submit()
    error = ValueError("no")
    assert machine.job_failed(1, job.id, error, 0.1, False) == [
        settled(job, Ending.ERROR, error)
    ]
    assert job.state is JobState.FAILED


def test_a_retryable_error_without_retries_settles_its_job():
    machine = Machine(1)
    job = machine.submit()
    (command,) = machine.job_failed(1, job.id, "error", 0.1, True)
    assert command == settled(job, Ending.ERROR, "error")


def test_retries_are_not_spent_on_errors_that_are_not_retryable():
    machine = Machine(1)
    job = machine.submit(retries=3)
    assert machine.job_failed(1, job.id, "error", 0.1, False) == [
        settled(job, Ending.ERROR, "error")
    ]


def test_a_retryable_error_is_tried_again_after_a_delay():
    machine = Machine(1)
    job = machine.submit(retries=1)
    assert machine.job_failed(1, job.id, "error", 0.1, True) == []
    assert job.state is JobState.DELAYED
    assert "(worker" not in job.story()
    assert (job.attempts, job.retries) == (1, 0)
    assert machine.stats.delayed == 1
    due = machine.scheduler.next_due()
    assert machine.now < due < machine.now + 0.1
    assert machine.wait(due - machine.now) == [SendJobs(1, [job])]
    assert machine.job_failed(1, job.id, "again", 0.1, True) == [
        settled(job, Ending.ERROR, "again")
    ]
    assert job.attempts == 2


def test_a_retry_that_could_not_begin_in_time_is_not_waited_for():
    machine = Machine(1)
    job = machine.submit(retries=1, deadline=machine.now + 1e-6)
    assert machine.job_failed(1, job.id, "error", 0.1, True) == [
        settled(job, Ending.ERROR, "error")
    ]


def test_a_retry_stands_before_jobs_that_have_not_had_their_turn():
    machine = Machine(1)
    job, second, third = (machine.submit(retries=1) for _ in range(3))
    assert SendJobs(1, [second]) in machine.job_failed(1, job.id, "error", 0.1, True)
    assert machine.wait(1.0) == []
    assert SendJobs(1, [job]) in machine.job_finished(1, second.id, None, 0.1)
    assert third.state is JobState.QUEUED


# Cancellation


def test_a_queued_job_that_is_cancelled_is_never_sent():
    machine = Machine()
    job, other = machine.submit_many(2)
    assert machine.job_cancelled(job.id) == [settled(job, Ending.CANCELLED)]
    assert job.state is JobState.CANCELLED
    assert machine.worker_ready(1) == [SendJobs(1, [other])]


def test_a_delayed_job_that_is_cancelled_is_never_sent():
    machine = Machine(1)
    job = machine.submit(retries=1)
    machine.job_failed(1, job.id, "error", 0.1, True)
    assert machine.job_cancelled(job.id) == [settled(job, Ending.CANCELLED)]
    assert machine.wait(60.0) == []
    assert machine.scheduler.next_due() is None


def test_a_job_that_has_ended_cannot_be_cancelled():
    machine = Machine(1)
    job = machine.submit()
    machine.job_finished(1, job.id, None, 0.1)
    assert machine.job_cancelled(job.id) == []
    assert machine.job_cancelled(4711) == []
    assert machine.stats.completed == 1


def test_a_job_that_waits_in_an_inbox_is_recalled():
    machine = Machine(1)
    head, job = machine.submit_many(2, short=True)
    assert machine.job_cancelled(job.id) == [
        settled(job, Ending.CANCELLED),
        RecallJobs(1, [job.id]),
    ]
    assert machine.jobs_returned(1, [job.id]) == []
    assert machine.job_finished(1, head.id, None, 1e-5) == [
        settled(head, Ending.RESULT)
    ]


def test_a_late_cancellation_does_not_hold_up_jobs_that_were_just_made():
    machine = Machine(workers=1)
    machine.scheduler.job_held(machine.make(), machine.now)
    sent = machine.scheduler.job_cancelled(99, machine.now)
    sent += machine.scheduler.held_released(machine.now)
    assert len(sent) == 1
    machine.scheduler.check()


def test_the_result_of_a_cancelled_job_is_dropped():
    machine = Machine(1)
    job = machine.submit()
    machine.job_cancelled(job.id)
    assert machine.job_finished(1, job.id, "late", 0.1) == []
    assert machine.stats.completed == 0


def test_the_error_of_a_cancelled_job_is_dropped():
    machine = Machine(1)
    job = machine.submit(retries=5)
    machine.job_cancelled(job.id)
    assert machine.job_failed(1, job.id, "late", 0.1, True) == []
    assert job.attempts == 1


def test_a_running_job_is_interrupted():
    machine = Machine(1)
    job = machine.submit()
    assert machine.job_cancelled(job.id) == [
        settled(job, Ending.CANCELLED),
        InterruptJob(1, job.id),
    ]
    assert job.attempts == 1


def test_a_worker_that_leaves_after_an_interrupt_is_not_blamed_on_anyone():
    machine = Machine(1)
    job = machine.submit()
    machine.job_cancelled(job.id)
    assert machine.job_interrupted(1, job.id) == []
    assert machine.worker_lost(1, None, "exit") == []
    assert machine.stats.workers == 0


def test_a_worker_that_does_not_answer_the_interrupt_is_killed():
    machine = Machine(1)
    job = machine.submit()
    machine.job_cancelled(job.id)
    assert machine.wait(GRACE / 2) == []
    (kill,) = machine.wait(GRACE / 2)
    assert isinstance(kill, KillWorker)
    assert kill.worker == 1
    assert "was cancelled and did not stop within 0.25 s" in kill.why
    assert machine.wait(60.0) == []
    assert machine.worker_lost(1, job.id, "SIGKILL") == []


def test_a_job_that_rests_is_asked_to_close_before_it_is_interrupted():
    machine = Machine(1)
    job = machine.submit(kind=Resting)
    assert machine.job_cancelled(job.id) == [
        settled(job, Ending.CANCELLED),
        CloseJob(1, job.id),
    ]
    assert machine.wait(GRACE / 4) == []
    assert machine.wait(GRACE / 4) == [InterruptJob(1, job.id)]
    assert machine.wait(GRACE / 4) == []
    (kill,) = machine.wait(GRACE / 4)
    assert isinstance(kill, KillWorker)
    assert "was cancelled and did not stop within 0.25 s" in kill.why


def test_a_job_that_closes_leaves_a_worker_that_is_used_again():
    machine = Machine(1)
    job = machine.submit(kind=Resting)
    other = machine.submit()
    machine.job_cancelled(job.id)
    assert machine.job_finished(1, job.id, None, 0.1) == [SendJobs(1, [other])]
    assert machine.wait(GRACE) == [], "neither the interrupt nor the kill comes"


def test_a_job_that_times_out_is_asked_to_close_too():
    machine = Machine(1)
    job = machine.submit(kind=Resting, run_timeout=1.0)
    assert machine.wait(1.0) == [
        settled(job, Ending.RUN_TIMEOUT),
        CloseJob(1, job.id),
    ]
    assert machine.wait(GRACE / 2) == [InterruptJob(1, job.id)]
    assert machine.job_interrupted(1, job.id) == []
    assert machine.wait(LEAVE_TIME - 0.1) == []


@pytest.mark.parametrize("on_cancel", ["kill", "finish"])
def test_a_job_is_asked_to_close_only_where_cancelling_stops_it(on_cancel):
    machine = Machine(1)
    job = machine.submit(kind=Resting, on_cancel=on_cancel)
    _, *commands = machine.job_cancelled(job.id)
    kinds = [type(command) for command in commands]
    assert kinds == ([KillWorker] if on_cancel == "kill" else [])


def test_a_job_that_has_given_a_part_is_not_tried_again():
    machine = Machine(1)
    job = machine.submit(kind=Resting, retries=3)
    assert machine.job_yielded(1, job.id) == []
    assert machine.job_yielded(1, job.id) == []
    assert machine.job_failed(1, job.id, "error", 0.1, True) == [
        settled(job, Ending.ERROR, "error")
    ]
    other = machine.submit(kind=Resting, retries=3)
    machine.job_yielded(1, other.id)
    assert machine.worker_lost(1, other.id, "exit") == [
        settled(other, Ending.LOST, "exit")
    ]
    assert other.story().count("given a part away") == 1


def test_a_worker_with_an_interrupted_job_gets_nothing_until_it_answers():
    machine = Machine(1)
    job = machine.submit()
    machine.job_cancelled(job.id)
    other = machine.submit()
    assert other.state is JobState.QUEUED
    assert machine.stats.idle_workers == 0
    assert machine.job_finished(1, job.id, "late", 0.1) == [SendJobs(1, [other])]
    assert machine.wait(GRACE) == [], "the kill is off"


def test_what_waits_behind_an_interrupted_job_comes_back():
    machine = Machine(2)
    alone, first, second = machine.submit_many(3, short=True)
    number = first.worker
    assert machine.job_cancelled(first.id) == [
        settled(first, Ending.CANCELLED),
        InterruptJob(number, first.id),
        RecallJobs(number, [second.id]),
    ]
    assert machine.jobs_returned(number, [second.id]) == [
        SendJobs(alone.worker, [second])
    ]
    assert machine.job_interrupted(number, first.id) == []


def test_a_worker_that_leaves_may_give_its_inbox_back_after_its_last_word():
    machine = Machine(1)
    first, second = machine.submit_many(2, short=True)
    machine.job_cancelled(first.id)
    assert machine.job_interrupted(1, first.id) == []
    assert second.state is JobState.QUEUED
    assert machine.jobs_returned(1, [second.id]) == []
    assert machine.stats.queued == 1


def test_a_worker_that_leaves_gets_no_more_jobs():
    machine = Machine(1)
    first = machine.submit()
    machine.job_cancelled(first.id)
    machine.job_interrupted(1, first.id)
    second = machine.submit()
    assert second.state is JobState.QUEUED
    machine.worker_lost(1, None, "exit")
    assert machine.worker_ready(2) == [SendJobs(2, [second])]


def test_a_worker_that_hangs_while_it_leaves_is_killed():
    machine = Machine(1)
    job = machine.submit()
    machine.job_cancelled(job.id)
    machine.job_interrupted(1, job.id)
    assert machine.wait(LEAVE_TIME - 0.1) == []
    (kill,) = machine.wait(0.1)
    assert isinstance(kill, KillWorker)
    assert kill.why == "it did not leave within 3 s"


def test_who_waits_and_who_is_idle_can_be_asked():
    machine = Machine(2)
    scheduler = machine.scheduler
    assert scheduler.idle_workers() == [1, 2]
    assert (scheduler.waiting, scheduler.longest_wait(machine.now)) == (0, 0.0)
    for _ in range(4):
        machine.submit()
    machine.now += 3.0
    assert scheduler.idle_workers() == []
    assert (scheduler.waiting, scheduler.longest_wait(machine.now)) == (2, 3.0)


def test_a_worker_that_was_sent_away_and_stays_is_killed():
    machine = Machine(1)
    assert machine.worker_retiring(1) == [StopWorker(1)]
    assert machine.wait(LEAVE_TIME - 0.1) == []
    (kill,) = machine.wait(0.1)
    assert isinstance(kill, KillWorker)
    assert machine.worker_lost(1, None, "SIGKILL") == []


def test_on_cancel_kill_does_not_ask():
    machine = Machine(1)
    job = machine.submit(on_cancel="kill")
    assert machine.job_cancelled(job.id) == [
        settled(job, Ending.CANCELLED),
        KillWorker(1, f"job {job.id} was cancelled", ExitReason.CANCELLED),
    ]
    assert machine.wait(60.0) == []
    assert machine.worker_lost(1, job.id, "SIGKILL") == []


def test_a_killed_worker_gets_no_more_jobs_even_if_it_still_answers():
    machine = Machine(1)
    job = machine.submit(on_cancel="kill")
    machine.job_cancelled(job.id)
    later = machine.submit()
    assert machine.job_finished(1, job.id, "late", 0.1) == []
    assert later.state is JobState.QUEUED


def test_a_job_whose_cancellation_kills_shares_its_worker_with_nobody():
    machine = Machine(1)
    machine.submit(short=True, on_cancel="kill")
    assert machine.submit(short=True).state is JobState.QUEUED


def test_on_cancel_finish_lets_it_end_and_drops_the_result():
    machine = Machine(1)
    job = machine.submit(on_cancel="finish")
    other = machine.submit()
    assert machine.job_cancelled(job.id) == [settled(job, Ending.CANCELLED)]
    assert machine.wait(3600.0) == []
    assert machine.job_finished(1, job.id, "late", 3600.0) == [SendJobs(1, [other])]


def test_a_recall_that_came_too_late_is_followed_by_an_interrupt():
    machine = Machine(1)
    first, second, third = machine.submit_many(3, short=True)
    machine.job_cancelled(second.id)
    assert machine.job_finished(1, first.id, None, 1e-5) == [
        settled(first, Ending.RESULT),
        InterruptJob(1, second.id),
        RecallJobs(1, [third.id]),
    ]


def test_after_a_late_recall_that_worked_the_worker_is_used_again():
    machine = Machine(1)
    first, second = machine.submit_many(2, short=True)
    machine.job_cancelled(second.id)
    machine.job_finished(1, first.id, None, 1e-5)
    third = machine.submit()
    assert machine.jobs_returned(1, [second.id]) == [SendJobs(1, [third])]
    assert machine.wait(GRACE) == []


def test_a_job_that_interrupts_itself_ends_as_cancelled():
    machine = Machine(1)
    job = machine.submit()
    assert machine.job_interrupted(1, job.id) == [settled(job, Ending.CANCELLED)]


def test_cancelling_while_the_kill_is_under_way_asks_nothing_of_the_worker():
    machine = Machine(1)
    first, second = machine.submit_many(2, short=True)
    machine.job_cancelled(first.id)
    machine.wait(GRACE)
    assert machine.job_cancelled(second.id) == [settled(second, Ending.CANCELLED)]
    assert machine.job_finished(1, first.id, None, 0.3) == []
    assert machine.wait(GRACE) == []


def test_cancel_all_settles_everything_and_sends_nothing():
    machine = Machine(1)
    head, rest = machine.submit_many(2, short=True)
    delayed = machine.submit(retries=1, priority=-1)
    queued = machine.submit(priority=-2)
    assert [job.worker for job in (head, rest, delayed, queued)] == [1, 1, None, None]
    assert machine.cancel_all() == [
        settled(delayed, Ending.CANCELLED),
        settled(queued, Ending.CANCELLED),
        settled(rest, Ending.CANCELLED),
        RecallJobs(1, [rest.id]),
        settled(head, Ending.CANCELLED),
        InterruptJob(1, head.id),
    ]
    assert machine.scheduler.idle
    assert machine.cancel_all() == []


def test_cancel_all_without_jobs_does_nothing():
    assert Machine(3).cancel_all() == []


def test_abandoned_jobs_are_lost_unless_a_worker_has_them():
    machine = Machine(1)
    running = machine.submit(retries=1)
    queued = machine.submit()
    assert machine.abandon_all("no workers") == [
        settled(queued, Ending.LOST, "no workers")
    ]
    machine.job_failed(1, running.id, "error", 0.1, True)
    assert machine.abandon_all("no workers") == [
        settled(running, Ending.LOST, "no workers")
    ]
    assert machine.scheduler.next_due() is None


# Deadlines and limits


def test_a_deadline_that_has_passed_is_a_timeout_at_once():
    machine = Machine(1)
    job = machine.make(deadline=machine.now)
    assert machine.job_submitted(job) == [settled(job, Ending.TIMEOUT)]
    assert machine.scheduler.next_due() is None


def test_a_queued_job_times_out_at_its_deadline():
    machine = Machine()
    job = machine.submit(deadline=machine.now + 5.0)
    assert machine.scheduler.next_due() == job.deadline
    assert machine.wait(4.9) == []
    assert machine.wait(0.1) == [settled(job, Ending.TIMEOUT)]
    assert machine.scheduler.idle


def test_a_job_out_of_time_is_not_sent_even_if_nobody_noticed():
    machine = Machine()
    job = machine.submit(deadline=machine.now + 1.0)
    machine.now += 2.0
    assert machine.worker_ready(1) == [settled(job, Ending.TIMEOUT)]


def test_a_delayed_job_times_out_at_its_deadline():
    machine = Machine(1)
    job = machine.submit(retries=1, deadline=machine.now + 0.11)
    machine.job_failed(1, job.id, "error", 0.1, True)
    machine.now += 0.2
    assert machine.time_passed() == [settled(job, Ending.TIMEOUT)]
    assert machine.stats.delayed == 0


def test_a_job_that_waits_in_an_inbox_times_out_and_is_recalled():
    machine = Machine(1)
    machine.submit(short=True)
    job = machine.submit(short=True, deadline=machine.now + 0.005)
    assert machine.wait(0.005) == [
        settled(job, Ending.TIMEOUT),
        RecallJobs(1, [job.id]),
    ]


def test_a_running_job_that_times_out_is_interrupted_and_its_worker_killed():
    machine = Machine(1)
    job = machine.submit(deadline=machine.now + 5.0)
    assert machine.wait(5.0) == [
        settled(job, Ending.TIMEOUT),
        InterruptJob(1, job.id),
    ]
    (kill,) = machine.wait(GRACE)
    assert isinstance(kill, KillWorker)
    assert "ran out of time" in kill.why
    assert kill.reason is ExitReason.TIMED_OUT


def test_a_timeout_interrupts_even_what_a_cancellation_would_let_finish():
    machine = Machine(1)
    job = machine.submit(deadline=machine.now + 5.0, on_cancel="finish")
    assert InterruptJob(1, job.id) in machine.wait(5.0)


def test_the_result_is_faster_than_the_deadline_if_it_is_told_first():
    machine = Machine(1)
    job = machine.submit(deadline=machine.now + 1.0)
    machine.now += 2.0
    assert machine.job_finished(1, job.id, "ok", 0.1) == [
        settled(job, Ending.RESULT, "ok")
    ]
    assert machine.scheduler.next_due() is None


def test_a_run_that_takes_too_long_is_interrupted():
    machine = Machine(1)
    job = machine.submit(run_timeout=3.0)
    assert machine.scheduler.next_due() == machine.now + 3.0
    assert machine.wait(2.9) == []
    assert machine.wait(0.1) == [
        settled(job, Ending.RUN_TIMEOUT),
        InterruptJob(1, job.id),
    ]
    assert machine.stats.timed_out == 1


def test_waiting_does_not_count_for_the_limit_of_a_run():
    machine = Machine(1)
    first = machine.submit()
    machine.submit(run_timeout=3.0)
    machine.wait(60.0)
    machine.job_finished(1, first.id, None, 60.0)
    assert machine.scheduler.next_due() == machine.now + 3.0


def test_in_an_inbox_the_run_begins_when_the_job_before_has_been_answered():
    machine = Machine(1)
    first = machine.submit(short=True)
    job = machine.submit(short=True, run_timeout=1.0)
    machine.now += 0.005
    machine.job_finished(1, first.id, None, 1e-5)
    machine.wait(0.99)
    assert job.state is JobState.SENT
    assert machine.wait(0.011)[0] == settled(job, Ending.RUN_TIMEOUT)


# Relief of inboxes


def test_jobs_behind_a_long_one_are_recalled_and_go_elsewhere():
    machine = Machine(1)
    _, second, third = machine.submit_many(3, short=True)
    assert machine.scheduler.next_due() == machine.now + PATIENCE
    assert machine.wait(PATIENCE) == [RecallJobs(1, [second.id, third.id])]
    assert machine.wait(1.0) == [], "once is enough"
    assert machine.jobs_returned(1, [second.id, third.id]) == []
    assert machine.worker_ready(2) == [SendJobs(2, [second, third])]
    assert (second.attempts, second.retries) == (0, 0)
    assert machine.stats.requeued == 2


def test_a_long_run_is_learnt_before_it_ends():
    machine = Machine(1)
    first, _ = machine.submit_many(2, short=True)
    machine.wait(PATIENCE)
    assert first.terms.cost.estimate == pytest.approx(PATIENCE)


def test_a_worker_that_was_relieved_is_used_again_after_the_long_job():
    machine = Machine(1)
    first, second = machine.submit_many(2, short=True)
    machine.wait(PATIENCE)
    machine.jobs_returned(1, [second.id])
    assert second.state is JobState.QUEUED
    assert machine.job_finished(1, first.id, None, 0.5) == [
        settled(first, Ending.RESULT),
        SendJobs(1, [second]),
    ]


def test_a_look_that_comes_too_early_sets_the_next_one():
    machine = Machine(1)
    first, second = machine.submit_many(2, short=True)
    machine.now += PATIENCE / 2
    machine.job_finished(1, first.id, None, 1e-5)
    third = machine.submit(short=True)
    assert machine.wait(PATIENCE / 2) == []
    assert machine.wait(PATIENCE / 2) == [RecallJobs(1, [third.id])]
    assert second.state is JobState.SENT


def test_a_look_that_was_set_for_later_does_not_delay_the_relief():
    machine = Machine(1)
    first = machine.submit(short=True)
    second = machine.submit(short=True)
    machine.job_cancelled(first.id)  # a look is set for the end of grace now
    machine.job_finished(1, first.id, None, 1e-5)
    third = machine.submit(short=True)
    assert second.state is JobState.SENT
    assert machine.wait(PATIENCE) == [RecallJobs(1, [third.id])]


def test_a_recall_takes_wanted_jobs_only():
    machine = Machine(1)
    _, second, third = machine.submit_many(3, short=True)
    machine.job_cancelled(second.id)
    assert machine.wait(PATIENCE) == [RecallJobs(1, [third.id])]


def test_a_job_that_finishes_in_spite_of_the_recall_counts():
    machine = Machine(1)
    first, second = machine.submit_many(2, short=True)
    machine.wait(PATIENCE)
    machine.job_finished(1, first.id, None, 0.5)
    assert machine.job_finished(1, second.id, "ok", 1e-5) == [
        settled(second, Ending.RESULT, "ok")
    ]
    assert machine.jobs_returned(1, []) == []


def test_jobs_that_a_worker_gives_back_unasked_are_queued_in_order():
    machine = Machine(1)
    jobs = machine.submit_many(4, short=True)
    commands = machine.jobs_returned(1, [jobs[2].id, jobs[1].id])
    assert commands == [SendJobs(1, [jobs[1], jobs[2]])]


def test_a_worker_may_give_back_all_that_it_has():
    machine = Machine(1)
    first, second = machine.submit_many(2, short=True)
    commands = machine.jobs_returned(1, [first.id, second.id])
    assert commands == [SendJobs(1, [first, second])]


# Workers


def test_what_a_worker_has_and_how_long_the_first_job_waits():
    machine = Machine(1)
    scheduler = machine.scheduler
    assert scheduler.jobs_of(1) == scheduler.jobs_of(99) == 0
    assert scheduler.longest_wait(machine.now) == 0.0
    machine.submit_many(3)
    assert scheduler.jobs_of(1) == 1
    assert scheduler.longest_wait(machine.now + 2.0) == 2.0


def test_a_retiring_worker_without_jobs_is_stopped():
    machine = Machine(1)
    assert machine.worker_retiring(1) == [StopWorker(1)]
    assert machine.worker_retiring(1) == []
    assert machine.submit().state is JobState.QUEUED
    assert machine.worker_lost(1, None, "exit") == []


def test_a_retiring_worker_finishes_its_job_first():
    machine = Machine(1)
    job = machine.submit()
    assert machine.worker_retiring(1) == []
    assert machine.worker_retiring(1) == []
    assert machine.job_finished(1, job.id, "ok", 0.1) == [
        settled(job, Ending.RESULT, "ok"),
        StopWorker(1),
    ]


def test_a_retiring_worker_gives_back_what_it_has_not_begun():
    machine = Machine(2)
    alone, first, second = machine.submit_many(3, short=True)
    number = first.worker
    assert machine.worker_retiring(number) == [RecallJobs(number, [second.id])]
    assert machine.jobs_returned(number, [second.id]) == [
        SendJobs(alone.worker, [second])
    ]
    assert StopWorker(number) in machine.job_finished(number, first.id, None, 1e-5)


def test_a_retiring_worker_whose_recall_came_too_late_runs_on():
    machine = Machine(1)
    first, second = machine.submit_many(2, short=True)
    machine.worker_retiring(1)
    assert StopWorker(1) not in machine.job_finished(1, first.id, None, 1e-5)
    assert StopWorker(1) in machine.job_finished(1, second.id, None, 1e-5)


def test_a_retiring_worker_with_a_cancelled_job_is_stopped_once_it_answers():
    machine = Machine(1)
    job = machine.submit()
    machine.worker_retiring(1)
    machine.job_cancelled(job.id)
    assert machine.job_finished(1, job.id, "late", 0.1) == [StopWorker(1)]


def test_the_job_that_a_lost_worker_ran_is_lost():
    machine = Machine(1)
    job = machine.submit()
    assert machine.worker_lost(1, job.id, "SIGSEGV") == [
        settled(job, Ending.LOST, "SIGSEGV")
    ]
    assert (job.attempts, job.kills) == (1, 1)


def test_the_job_that_a_lost_worker_ran_is_retried_if_it_may_be():
    machine = Machine(1)
    job = machine.submit(retries=1)
    assert machine.worker_lost(1, job.id, "SIGSEGV") == []
    assert job.state is JobState.QUEUED
    assert (job.attempts, job.retries, job.kills) == (1, 0, 1)
    assert machine.worker_ready(2) == [SendJobs(2, [job])]
    assert machine.worker_lost(2, job.id, "again") == [
        settled(job, Ending.LOST, "again")
    ]


def test_a_job_that_kills_worker_after_worker_is_poison():
    machine = Machine(max_kills=3)
    job = machine.submit(retries=10)
    for number in (1, 2):
        machine.worker_ready(number)
        assert machine.worker_lost(number, job.id, "SIGSEGV") == []
    machine.worker_ready(3)
    assert machine.wait(0.1) == [SendJobs(3, [job])]
    assert machine.worker_lost(3, job.id, "SIGSEGV") == [
        settled(job, Ending.POISON, "SIGSEGV")
    ]
    assert machine.stats.poisoned == 1
    assert job.attempts == 3


def lose_two(machine, **options):
    """Let a job kill two workers; returns it with the commands of the second death."""
    job = machine.submit(retries=9, **options)
    for number in (1, 2):
        assert machine.worker_ready(number) == [SendJobs(number, [job])]
        commands = machine.worker_lost(number, job.id, "SIGSEGV")
    return job, commands


def test_a_job_that_has_killed_a_second_worker_waits_before_it_tries_again():
    machine = Machine()
    job, commands = lose_two(machine)
    assert commands == []
    assert job.state is JobState.DELAYED
    assert (job.retries, job.kills) == (7, 2)
    assert "lost while it ran, to be tried again in 0.0" in job.story()
    assert machine.worker_ready(3) == []
    due = machine.scheduler.next_due()
    assert machine.now < due < machine.now + 0.1
    assert machine.wait(due - machine.now) == [SendJobs(3, [job])]


def test_jobs_that_killed_their_workers_together_do_not_come_back_together():
    machine = Machine()
    jobs = [lose_two(machine)[0] for _ in range(2)]
    machine.wait(machine.scheduler.next_due() - machine.now)
    assert {job.state for job in jobs} == {JobState.QUEUED, JobState.DELAYED}


def test_a_job_whose_next_attempt_would_be_too_late_is_lost_at_once():
    machine = Machine()
    job, commands = lose_two(machine, deadline=machine.now + 1e-6)
    assert commands == [settled(job, Ending.LOST, "SIGSEGV")]
    assert job.retries == 8


def test_jobs_behind_one_that_kills_again_and_again_are_neither_charged_nor_delayed():
    machine = Machine()
    fatal, behind = machine.submit_many(2, short=True, retries=9)
    for number in (1, 2):
        assert machine.worker_ready(number) == [SendJobs(number, [fatal, behind])]
        machine.worker_lost(number, fatal.id, "SIGSEGV")
    assert fatal.state is JobState.DELAYED
    assert machine.worker_ready(3) == [SendJobs(3, [behind])]
    assert (behind.attempts, behind.retries, behind.kills) == (0, 9, 0)


def test_jobs_that_had_not_begun_are_requeued_in_order_and_not_charged():
    machine = Machine(1)
    jobs = machine.submit_many(4, short=True)
    late = machine.submit()
    assert machine.worker_lost(1, jobs[0].id, "SIGKILL") == [
        settled(jobs[0], Ending.LOST, "SIGKILL")
    ]
    assert machine.worker_ready(2) == [SendJobs(2, jobs[1:])]
    assert all(job.attempts == job.kills == 0 for job in jobs[1:])
    assert late.state is JobState.QUEUED


def test_a_worker_lost_between_two_jobs_blames_nobody():
    machine = Machine(1)
    job = machine.submit()
    assert machine.worker_lost(1, None, "SIGKILL") == []
    assert machine.worker_ready(2) == [SendJobs(2, [job])]
    assert job.kills == 0


def test_a_job_that_was_answered_is_not_blamed():
    machine = Machine(1)
    first = machine.submit()
    second = machine.submit()
    machine.job_finished(1, first.id, None, 0.1)
    assert machine.worker_lost(1, first.id, "SIGKILL") == []
    assert second.state is JobState.QUEUED


def test_unwanted_jobs_of_a_lost_worker_are_forgotten():
    machine = Machine(1)
    first, second, third = machine.submit_many(3, short=True)
    machine.job_cancelled(first.id)
    machine.job_cancelled(second.id)
    assert machine.worker_lost(1, first.id, "SIGKILL") == []
    assert machine.worker_ready(2) == [SendJobs(2, [third])]


def test_a_job_hit_by_the_kill_of_its_neighbour_is_no_step_towards_poison():
    machine = Machine(1)
    first, second = machine.submit_many(2, short=True, retries=1)
    machine.job_cancelled(first.id)
    machine.wait(GRACE)
    assert machine.worker_lost(1, second.id, "SIGKILL") == []
    assert (second.kills, second.retries) == (0, 0)


def test_a_job_out_of_time_when_its_worker_is_lost_times_out():
    machine = Machine(2)
    job = machine.submit(deadline=machine.now + 1.0)
    number = job.worker
    machine.now += 2.0
    assert machine.worker_lost(number, None, "SIGKILL") == [
        settled(job, Ending.TIMEOUT)
    ]


# What must not happen


def test_an_unknown_worker_is_a_bug():
    machine = Machine()
    for fact, args in [
        ("job_finished", (9, 1, None, 0.1)),
        ("job_failed", (9, 1, None, 0.1, False)),
        ("job_interrupted", (9, 1)),
        ("job_yielded", (9, 1)),
        ("jobs_returned", (9, [1])),
        ("worker_retiring", (9,)),
        ("worker_lost", (9, None, "exit")),
    ]:
        with pytest.raises(InternalError, match="worker 9 is not known"):
            getattr(machine, fact)(*args)


def test_an_answer_for_a_job_that_the_worker_does_not_have_is_a_bug():
    machine = Machine(2)
    job = machine.submit()
    other = 3 - job.worker
    for fact, args in [
        ("job_finished", (other, job.id, None, 0.1)),
        ("job_failed", (other, job.id, None, 0.1, False)),
        ("job_interrupted", (other, job.id)),
        ("job_yielded", (other, job.id)),
        ("jobs_returned", (other, [job.id])),
    ]:
        with pytest.raises(InternalError, match="does not have") as caught:
            getattr(machine, fact)(*args)
        assert f"job {job.id} is SENT (worker {job.worker})" in caught.value.story


def test_a_second_answer_is_a_bug():
    machine = Machine(1)
    job = machine.submit()
    machine.job_finished(1, job.id, None, 0.1)
    with pytest.raises(InternalError):
        machine.job_finished(1, job.id, None, 0.1)


def test_a_worker_is_ready_once():
    machine = Machine(1)
    with pytest.raises(InternalError, match="worker 1 got ready twice"):
        machine.worker_ready(1)


def test_a_job_is_submitted_once():
    machine = Machine()
    job = machine.submit()
    with pytest.raises(InternalError, match=f"job {job.id} was submitted twice"):
        machine.job_submitted(job)


def test_check_notices_a_job_in_two_inboxes():
    machine = Machine(2)
    job = machine.submit()
    roster = machine.scheduler._roster
    other = roster.pick(0.0, machine.now)
    other.inbox[job.id] = job
    roster.file(other)
    assert other is not None
    assert other.number != job.worker
    with pytest.raises(AssertionError):
        machine.scheduler.check()


# Questions


def test_knows_which_jobs_are_pending():
    machine = Machine(1)
    job = machine.submit()
    assert job.id in machine.scheduler
    machine.job_finished(1, job.id, None, 1e-5)
    assert job.id not in machine.scheduler


def test_short_jobs_that_were_held_leave_together():
    machine = Machine(1)
    jobs = [machine.make(short=True) for _ in range(3)]
    for job in jobs:
        machine.job_held(job)
    assert machine.held_released() == [SendJobs(1, jobs)]


def test_those_leave_together_that_fit_into_the_window():
    machine, cost = Machine(1), RunTime()
    for _ in range(8):
        cost.observe(0.0004)
    jobs = [make_of(machine, cost) for _ in range(3)]
    for job in jobs:
        machine.job_held(job)
    assert machine.held_released() == [SendJobs(1, jobs[:2])]


def test_short_jobs_with_keys_come_one_by_one():
    machine, cost = Machine(1), short_cost()
    running = machine.submit()
    jobs = [make_of(machine, cost, key=key) for key in "aabb"]
    for job in jobs:
        machine.job_submitted(job)
    sent = machine.job_finished(1, running.id, None, 1e-5)[1:]
    first, second, third, fourth = jobs
    assert sent == [SendJobs(1, [first, third, second, fourth])]


def test_nothing_is_released_when_nothing_was_held():
    machine = Machine(1)
    assert machine.held_released() == []


def test_a_job_with_a_limit_is_not_sent_along_with_others():
    machine, cost = Machine(1), short_cost()
    limited = make_of(machine, cost, limit=ConcurrencyLimit(1))
    running = machine.submit()
    jobs = [make_of(machine, cost) for _ in range(3)]
    for job in (*jobs[:2], limited, jobs[2]):
        machine.job_submitted(job)
    machine.job_finished(1, running.id, None, 1e-5)
    assert [job.state for job in (*jobs, limited)] == [JobState.SENT] * 4
    assert limited.terms.limit.sent == 1


def test_numbers_grow():
    scheduler = Scheduler()
    assert [scheduler.next_id() for _ in range(3)] == [1, 2, 3]


def test_stats_count_everything_once():
    machine = Machine(1)
    done, failed, retried, cancelled = (machine.submit(retries=1) for _ in range(4))
    late = machine.submit(deadline=machine.now + 1.0)
    machine.job_finished(1, done.id, None, 0.1)
    machine.job_failed(1, failed.id, "error", 0.1, False)
    machine.job_failed(1, retried.id, "error", 0.1, True)
    machine.job_cancelled(late.id)
    seen = dataclasses.asdict(machine.stats)
    assert {name: count for name, count in seen.items() if count} == {
        "sent": 1,
        "delayed": 1,
        "workers": 1,
        "submitted": 5,
        "completed": 1,
        "failed": 1,
        "cancelled": 1,
        "retried": 1,
    }
    assert cancelled.state is JobState.SENT


def test_stats_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Machine().stats.queued = 1


def test_idle_and_pending_follow_the_jobs():
    machine = Machine(1)
    assert machine.scheduler.idle
    job = machine.submit()
    assert not machine.scheduler.idle
    assert machine.scheduler.pending == 1
    machine.job_finished(1, job.id, None, 0.1)
    assert machine.scheduler.idle


def test_a_job_is_held_until_its_worker_has_answered():
    machine = Machine(1)
    job = machine.submit()
    machine.job_cancelled(job.id)
    assert machine.scheduler.held(1, job.id) is job
    machine.job_finished(1, job.id, "late", 0.1)
    assert machine.scheduler.held(1, job.id) is None
    assert machine.scheduler.held(9, job.id) is None


def test_a_worker_is_known_until_it_is_lost():
    machine = Machine(1)
    assert machine.scheduler.knows(1)
    machine.worker_lost(1, None, "exit")
    assert not machine.scheduler.knows(1)


def test_nothing_is_due_without_times():
    machine = Machine(1)
    machine.submit_many(3)
    assert machine.scheduler.next_due() is None


def test_the_earliest_time_is_due_next():
    machine = Machine(1)
    machine.submit(run_timeout=2.0)
    machine.submit(deadline=machine.now + 7.0)
    machine.submit(deadline=machine.now + 1.0)
    assert machine.scheduler.next_due() == machine.now + 1.0


def test_the_story_of_a_job_tells_what_happened_to_it():
    machine = Machine(1)
    job = machine.submit(retries=1)
    machine.worker_lost(1, job.id, "SIGSEGV")
    assert "requeued: worker 1 was lost while it ran" in machine.scheduler.story(job.id)
    machine.worker_ready(2)
    machine.job_failed(2, job.id, "error", 0.1, False)
    story = machine.scheduler.story(job.id)
    assert f"job {job.id} is FAILED (worker 2)" in story
    assert "ended by error" in story


def test_stories_are_found_behind_later_ones():
    machine = Machine()
    first, second = machine.submit_many(2)
    machine.job_cancelled(first.id)
    machine.job_cancelled(second.id)
    assert f"job {first.id} is CANCELLED" in machine.scheduler.story(first.id)


def test_a_job_that_nobody_remembers_has_a_story_too():
    assert "job 99 is not pending" in Machine().scheduler.story(99)


def test_ended_jobs_are_not_kept():
    machine = Machine(1)
    for _ in range(1000):
        job = machine.submit(deadline=machine.now + 1e6)
        machine.job_finished(1, job.id, None, 0.1)
    ledger = machine.scheduler._ledger
    assert not ledger.jobs
    assert not ledger.stories
    assert len(ledger.deadlines._heap) <= 65
    assert inf not in ledger.deadlines


# Several answers at once


def test_results_that_came_together_settle_in_order():
    machine = Machine(1)
    jobs = machine.submit_many(5, short=True)
    waiting = machine.submit()  # of unknown length: it waits for an empty inbox
    answers = [(job.id, f"result {job.id}", 1e-5) for job in jobs[:4]]
    assert machine.jobs_finished(1, answers) == [
        settled(job, Ending.RESULT, f"result {job.id}") for job in jobs[:4]
    ]
    assert machine.jobs_finished(1, [(jobs[4].id, "last", 1e-5)]) == [
        settled(jobs[4], Ending.RESULT, "last"),
        SendJobs(1, [waiting]),
    ]


def test_results_that_came_together_may_hold_one_that_nobody_wants():
    machine = Machine(1)
    first, unwanted, last = machine.submit_many(3, short=True)
    machine.job_cancelled(unwanted.id)
    answers = [(job.id, None, 1e-5) for job in (first, unwanted, last)]
    assert machine.jobs_finished(1, answers) == [
        settled(first, Ending.RESULT),
        settled(last, Ending.RESULT),
    ]


def test_results_of_a_worker_that_retires_let_it_go():
    machine = Machine(1)
    first, second = machine.submit_many(2, short=True)
    machine.worker_retiring(1)
    answers = [(first.id, 1, 1e-5), (second.id, 2, 1e-5)]
    assert machine.jobs_finished(1, answers) == [
        settled(first, Ending.RESULT, 1),
        settled(second, Ending.RESULT, 2),
        StopWorker(1),
    ]


def test_a_result_among_others_for_a_job_that_is_elsewhere_is_a_bug():
    machine = Machine(1)
    with pytest.raises(InternalError, match="does not have"):
        machine.jobs_finished(1, [(99, None, 1e-5)])


# Without any worker


def test_abandoning_ends_all_that_wait_and_none_that_runs():
    machine = Machine(1)
    running, waiting = machine.submit_many(2)
    assert machine.abandon_all("no worker") == [
        settled(waiting, Ending.LOST, "no worker")
    ]
    assert machine.scheduler.pending == 1
    assert machine.scheduler.held(1, running.id) is running
    assert machine.scheduler.held(2, running.id) is None
    assert machine.scheduler.knows(1)
    assert not machine.scheduler.knows(2)


# Limits of functions, keys and sizes


def test_a_function_takes_no_more_workers_than_its_limit():
    machine = Machine(3)
    limit = ConcurrencyLimit(2)
    report = [machine.submit(limit=limit) for _ in range(4)]
    other = machine.submit()
    assert [job.state for job in report[2:]] == [JobState.QUEUED] * 2
    assert other.state is JobState.SENT
    assert (machine.stats.queued, machine.stats.parked) == (2, 2)
    worker = report[0].worker
    assert machine.job_finished(worker, report[0].id, None, 1.0) == [
        settled(report[0], Ending.RESULT),
        SendJobs(worker, [report[2]]),
    ]


def test_a_held_job_goes_before_those_that_came_later():
    machine = Machine(1)
    limit = ConcurrencyLimit(1)
    first, second = (machine.submit(limit=limit) for _ in range(2))
    later = machine.submit()
    commands = machine.job_finished(1, first.id, None, 1.0)
    assert SendJobs(1, [second]) in commands
    assert SendJobs(1, [later]) in machine.job_finished(1, second.id, None, 1.0)


def test_the_most_urgent_held_job_comes_out_first():
    machine = Machine(2)
    limit = ConcurrencyLimit(1)
    first = machine.submit(limit=limit)
    low, high = (machine.submit(limit=limit, priority=p) for p in (0, 5))
    assert SendJobs(2, [high]) in machine.job_finished(2, first.id, None, 1.0)
    assert SendJobs(2, [low]) in machine.job_finished(2, high.id, None, 1.0)


def test_jobs_behind_one_that_is_held_pass_it():
    machine = Machine(1)
    limit = ConcurrencyLimit(1)
    running = machine.submit(limit=limit)
    held = machine.submit(limit=limit)
    passing = machine.submit()
    assert machine.worker_ready(2) == [SendJobs(2, [passing])]
    assert held.state is JobState.QUEUED
    assert SendJobs(1, [held]) in machine.job_finished(1, running.id, None, 1.0)


@pytest.mark.parametrize("end", ["fails", "crashes", "is interrupted", "is returned"])
def test_however_a_job_ends_the_next_of_its_function_may_go(end):
    machine = Machine(1)
    limit = ConcurrencyLimit(1)
    first, second = (machine.submit(limit=limit) for _ in range(2))
    if end == "fails":
        commands = machine.job_failed(1, first.id, "error", 0.1, False)
    elif end == "crashes":
        machine.worker_lost(1, first.id, None)
        commands = machine.worker_ready(2)
    elif end == "is interrupted":
        machine.job_cancelled(first.id)
        machine.job_interrupted(1, first.id)
        commands = machine.worker_ready(2)
    else:
        machine.jobs_returned(1, [first.id])
        assert first.state is JobState.SENT  # it goes before the other
        commands = machine.job_finished(1, first.id, None, 0.1)
    assert (
        SendJobs(2 if end in ("crashes", "is interrupted") else 1, [second]) in commands
    )


def test_a_job_that_is_stopped_counts_until_its_worker_has_answered():
    machine = Machine(2)
    limit = ConcurrencyLimit(1)
    first, second = (machine.submit(limit=limit) for _ in range(2))
    machine.job_cancelled(first.id)
    assert second.state is JobState.QUEUED
    assert SendJobs(1, [second]) in machine.job_interrupted(2, first.id)


def test_a_held_job_that_is_cancelled_or_out_of_time_leaves():
    machine = Machine(1)
    limit = ConcurrencyLimit(1)
    running = machine.submit(limit=limit)
    cancelled = machine.submit(limit=limit)
    late = machine.submit(limit=limit, deadline=machine.now + 1)
    assert machine.job_cancelled(cancelled.id) == [settled(cancelled, Ending.CANCELLED)]
    assert machine.wait(2) == [settled(late, Ending.TIMEOUT)]
    assert machine.stats.queued == 0
    machine.job_finished(1, running.id, None, 1.0)


def test_a_released_job_that_is_cancelled_in_the_queue_hands_on_its_turn():
    machine = Machine(1)
    limit = ConcurrencyLimit(1)
    first, second, third = (machine.submit(limit=limit) for _ in range(3))
    blocking = machine.submit(priority=9)
    assert SendJobs(1, [blocking]) in machine.job_finished(1, first.id, None, 1.0)
    machine.job_cancelled(second.id)
    assert SendJobs(1, [third]) in machine.job_finished(1, blocking.id, None, 1.0)


def test_keys_share_the_workers():
    machine = Machine(1)
    machine.submit()
    greedy = [machine.submit(key="greedy") for _ in range(3)]
    modest = machine.submit(key="modest")
    order = []
    for _ in range(4):
        (running,) = (j for j in [*machine.scheduler._jobs.values()] if j.worker)
        machine.job_finished(1, running.id, None, 1.0)
        order += [job for job in (*greedy, modest) if job.worker and job not in order]
    assert order == [greedy[0], modest, *greedy[1:]]


def test_bytes_are_a_limit_that_one_job_may_exceed():
    machine = Machine(1, max_pending_bytes=1000)
    first = machine.submit(size=900)
    assert machine.scheduler.room == 1
    machine.submit(size=5000)
    assert machine.scheduler.room == 0
    with pytest.raises(PoolFull, match="max_pending_bytes is 1,000") as caught:
        machine.submit()
    assert (caught.value.pending, caught.value.limit) == (5900, 1000)
    machine.job_finished(1, first.id, None, 1.0)
    assert machine.stats.size == 5000


def test_the_number_of_jobs_is_named_when_it_is_what_is_reached():
    machine = Machine(1, max_pending=1, max_pending_bytes=1000)
    machine.submit(size=10)
    with pytest.raises(PoolFull, match="max_pending is 1;"):
        machine.submit()


# Functions that kill worker after worker


def kill_workers(machine, cost, count):
    """Let jobs of a function kill so many workers; returns the last commands."""
    for _ in range(count):
        number = max(machine.scheduler._workers, default=0) + 1
        machine.worker_ready(number)
        job = machine.make()
        job.terms.cost = cost
        assert machine.job_submitted(job) == [SendJobs(number, [job])]
        commands = machine.worker_lost(number, job.id, "its loss")
        assert commands[0] == settled(job, Ending.LOST, "its loss")
    return commands[1:]


def make_of(machine, cost, **options):
    job = machine.make(**options)
    job.terms.cost = cost
    return job


def test_a_function_that_kills_again_and_again_is_refused_and_others_go_on():
    machine, cost = Machine(), RunTime()
    kill_workers(machine, cost, 4)
    machine.worker_ready(77)
    fatal = make_of(machine, cost, retries=3)
    machine.job_submitted(fatal)
    limited = make_of(machine, cost, limit=ConcurrencyLimit(1))
    waiting = [make_of(machine, cost), limited]
    for job in waiting:
        machine.job_submitted(job)
    other = machine.submit()
    # It is not tried again though it has retries, nor are those that wait.
    lost, *refused = machine.worker_lost(77, fatal.id, "its loss")
    assert lost == settled(fatal, Ending.LOST, "its loss")
    assert [(one.job, one.ending) for one in refused] == [
        (job, Ending.QUARANTINED) for job in waiting
    ]
    assert refused[0].detail.retry_after == 5.0
    assert refused[0].detail.loss == "its loss"
    late = make_of(machine, cost)
    (refusal,) = machine.job_submitted(late)
    assert (refusal.job, refusal.ending) == (late, Ending.QUARANTINED)
    assert machine.worker_ready(78) == [SendJobs(78, [other])]
    assert machine.stats.failed == 3


def test_after_a_while_one_job_is_tried_and_if_it_lives_all_are_run():
    machine, cost = Machine(), RunTime()
    kill_workers(machine, cost, 5)
    machine.worker_ready(77)
    machine.worker_ready(78)
    machine.wait(5)
    jobs = [make_of(machine, cost) for _ in range(3)]
    for job in jobs:
        machine.job_held(job)
    sent, *refused = machine.held_released()
    assert sent == SendJobs(sent.worker, [jobs[0]])
    assert [one.ending for one in refused] == [Ending.QUARANTINED] * 2
    machine.job_finished(sent.worker, jobs[0].id, "alive", 0.1)
    last = make_of(machine, cost)
    assert isinstance(machine.job_submitted(last)[0], SendJobs)


def test_an_error_of_the_function_is_a_life_too():
    machine, cost = Machine(), RunTime()
    kill_workers(machine, cost, 5)
    machine.worker_ready(77)
    machine.wait(5)
    job = make_of(machine, cost)
    machine.job_submitted(job)
    machine.job_failed(77, job.id, "error", 0.1, False)
    assert isinstance(machine.job_submitted(make_of(machine, cost))[0], SendJobs)


def test_one_that_comes_back_is_refused_when_its_turn_comes():
    machine, cost = Machine(), RunTime()
    kill_workers(machine, cost, 4)
    machine.worker_ready(77)
    machine.worker_ready(78)
    back = make_of(machine, cost, limit=ConcurrencyLimit(1))
    fatal = make_of(machine, cost)
    machine.job_submitted(back)
    machine.job_submitted(fatal)
    machine.worker_lost(fatal.worker, fatal.id, "its loss")
    (refusal,) = machine.jobs_returned(back.worker, [back.id])
    assert (refusal.job, refusal.ending) == (back, Ending.QUARANTINED)


def test_workers_that_the_pool_kills_do_not_count():
    machine, cost = Machine(), RunTime()
    for number in range(1, 10):
        machine.worker_ready(number)
        job = make_of(machine, cost)
        machine.job_submitted(job)
        machine.job_cancelled(job.id)
        machine.wait(GRACE)
        machine.worker_lost(number, job.id, "killed")
    machine.worker_ready(99)
    assert isinstance(machine.job_submitted(make_of(machine, cost))[0], SendJobs)
