"""The relay: all jobs go to one peer, and each of them ends once."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from offloop.core.commands import RecallJobs, SendJobs, Settle, SettleResults
from offloop.core.job import Ending, JobRecord, JobState, Terms
from offloop.core.policies import RunTime
from offloop.core.relay import PEER, Relay
from offloop.errors import PoolFull


def job(number, **words):
    deadline = words.pop("deadline", inf)
    return JobRecord(number, Terms(RunTime(), **words), deadline=deadline)


@pytest.fixture
def relay():
    one = Relay(max_pending=100)
    one.peer_ready(0.0)
    return one


def submit(relay, *jobs):
    for one in jobs:
        relay.job_held(one, 0.0)
    return relay.held_released(0.0)


def sent(commands):
    return [[one.id for one in c.jobs] for c in commands if isinstance(c, SendJobs)]


def ended(commands):
    return [(c.job.id, c.ending) for c in commands if isinstance(c, Settle)]


def test_jobs_go_to_the_peer_at_once_in_messages_of_limited_length(relay):
    commands = submit(relay, *[job(n) for n in range(1, 71)])
    assert [len(numbers) for numbers in sent(commands)] == [32, 32, 6]
    assert relay.held(PEER, 70).state is JobState.SENT


def test_urgent_jobs_stand_before_others(relay):
    commands = submit(relay, job(1), job(2, priority=5), job(3))
    assert sent(commands) == [[2, 1, 3]]


def test_jobs_wait_for_the_peer_and_keep_their_order():
    relay = Relay()
    assert submit(relay, job(1), job(2)) == []
    assert submit(relay, job(3)) == []
    assert sent(relay.peer_ready(1.0)) == [[1, 2, 3]]


def test_results_settle_together_and_late_ones_are_dropped(relay):
    submit(relay, job(1), job(2))
    relay.job_cancelled(2, 0.1)
    (command,) = relay.jobs_finished(PEER, [(1, "a", 0.5), (2, "b", 0.5)], 1.0)
    assert isinstance(command, SettleResults)
    assert [(one.id, detail) for one, detail in command.results] == [(1, "a")]
    assert relay.jobs_finished(PEER, [(1, "a", 0.5)], 1.1) == []
    assert relay.idle


def test_cancelling_tells_the_peer_only_what_it_knows(relay):
    submit(relay, job(1))
    relay.jobs_returned(PEER, [1], 0.1)
    assert ended(relay.job_cancelled(1, 0.2)) == [(1, Ending.CANCELLED)]
    relay.peer_ready(0.3)
    submit(relay, job(2), job(3))
    commands = relay.cancel_all(0.4)
    assert [c.jobs for c in commands if isinstance(c, RecallJobs)] == [[2], [3]]
    assert relay.idle


def test_an_error_is_tried_again_if_it_may_be(relay):
    submit(relay, job(1, retries=1), job(2))
    assert relay.job_failed(PEER, 1, "error", 0.1, True, 1.0) == []
    assert ended(relay.job_failed(PEER, 2, "error", 0.1, True, 1.0)) == [
        (2, Ending.ERROR)
    ]
    assert sent(relay.time_passed(relay.next_due())) == [[1]]
    assert ended(relay.job_failed(PEER, 1, "error", 0.1, True, 9.0)) == [
        (1, Ending.ERROR)
    ]
    assert relay.job_failed(PEER, 1, "late", 0.1, True, 9.1) == []


def test_a_stream_that_has_begun_is_not_tried_again(relay):
    submit(relay, job(1, retries=2))
    assert relay.job_yielded(PEER, 1, 0.1) == []
    assert relay.job_yielded(PEER, 2, 0.1) == []
    assert ended(relay.job_failed(PEER, 1, "", 0.1, True, 1.0)) == [(1, Ending.ERROR)]


@pytest.mark.parametrize("ending", [Ending.LOST, Ending.CANCELLED])
def test_the_peer_tells_how_a_job_ended(relay, ending):
    submit(relay, job(1))
    assert ended(relay.job_ended(1, ending, None, 1.0)) == [(1, ending)]
    assert relay.job_ended(1, ending, None, 1.1) == []


def test_a_deadline_holds_wherever_the_job_is(relay):
    submit(relay, job(1, deadline=2.0))
    relay.jobs_returned(PEER, [1], 0.5)
    submit(relay, job(2, deadline=2.0))
    assert relay.next_due() == 2.0
    commands = relay.time_passed(2.0)
    assert {number for number, _ in ended(commands)} == {1, 2}
    assert {how for _, how in ended(commands)} == {Ending.TIMEOUT}


def test_returned_jobs_wait_until_there_is_room_again(relay):
    submit(relay, job(1), job(2), job(3))
    assert relay.jobs_returned(PEER, [2, 3, 99], 0.1) == []
    assert submit(relay, job(4)) == []
    assert sent(relay.peer_ready(0.2, 2)) == [[2, 3]]
    assert not relay.open
    assert sent(relay.peer_ready(0.3, 5)) == [[4]]
    assert relay.open


def test_a_job_that_may_not_wait_is_refused(relay):
    submit(relay, job(1), job(2))
    relay.jobs_returned(PEER, [1], 0.1)
    assert ended(relay.job_refused(1, "full", 0.2)) == [(1, Ending.ERROR)]
    assert relay.job_refused(2, "it is with the peer", 0.2) == []
    assert relay.job_refused(1, "it has ended", 0.2) == []


def test_what_a_lost_peer_had_is_lost_and_what_waits_goes_to_its_successor(relay):
    submit(relay, job(1), job(2))
    relay.jobs_returned(PEER, [2], 0.1)
    assert ended(relay.peer_lost("gone", 0.2)) == [(1, Ending.LOST)]
    assert sent(relay.peer_ready(0.3)) == [[2]]


def test_it_holds_as_many_jobs_as_it_may():
    relay = Relay(max_pending=1)
    submit(relay, job(1))
    with pytest.raises(PoolFull):
        relay.job_held(job(2), 0.0)


def test_check_finds_jobs_that_wait_for_nothing(relay):
    relay._passage.open = False
    submit(relay, job(1))
    relay.check()
    relay._passage.open = True
    with pytest.raises(AssertionError):
        relay.check()


class Machine(RuleBasedStateMachine):
    """Whatever comes in whatever order, each job ends once and none is forgotten."""

    def __init__(self):
        super().__init__()
        self.relay = Relay(max_pending=20)
        self.now = 0.0
        self.last = 0
        self.jobs = {}
        self.ends = {}

    def perform(self, commands):
        for command in commands:
            if isinstance(command, SettleResults):
                for one, _ in command.results:
                    self.end(one)
            elif isinstance(command, Settle):
                self.end(command.job)
            elif isinstance(command, SendJobs):
                assert all(one.state is JobState.SENT for one in command.jobs)

    def end(self, one):
        self.ends[one.id] = self.ends.get(one.id, 0) + 1

    @rule(wait=st.sampled_from([0.1, 1.0, 1e9]), priority=st.integers(0, 1))
    def submit(self, wait, priority):
        self.last += 1
        deadline = self.now + wait
        one = job(self.last, deadline=deadline, priority=priority, retries=1)
        try:
            self.relay.job_held(one, self.now)
        except PoolFull:
            return
        self.jobs[one.id] = one

    @rule()
    def release(self):
        self.perform(self.relay.held_released(self.now))

    @rule(number=st.integers(1, 30))
    def cancel(self, number):
        self.perform(self.relay.job_cancelled(number, self.now))

    @rule(numbers=st.lists(st.integers(1, 30), unique=True, max_size=4))
    def finish(self, numbers):
        answers = [(number, None, 0.1) for number in numbers]
        self.perform(self.relay.jobs_finished(PEER, answers, self.now))

    @rule(number=st.integers(1, 30), again=st.booleans())
    def fail(self, number, again):
        self.perform(self.relay.job_failed(PEER, number, "", 0.1, again, self.now))

    @rule(number=st.integers(1, 30))
    def lose(self, number):
        self.perform(self.relay.job_ended(number, Ending.LOST, None, self.now))

    @rule(numbers=st.lists(st.integers(1, 30), unique=True, max_size=4))
    @precondition(lambda self: self.relay.open)
    def give_back(self, numbers):
        self.perform(self.relay.jobs_returned(PEER, numbers, self.now))

    @rule(room=st.one_of(st.none(), st.integers(1, 5)))
    def room(self, room):
        self.perform(self.relay.peer_ready(self.now, room))

    @rule()
    def vanish(self):
        self.perform(self.relay.peer_lost("", self.now))

    @rule(seconds=st.floats(0.0, 2.0))
    def wait(self, seconds):
        self.now += seconds
        self.perform(self.relay.time_passed(self.now))

    @invariant()
    def holds(self):
        self.relay.check()
        pending = {one.id for one in self.relay._jobs.values()}
        assert pending | set(self.ends) == set(self.jobs)
        assert not pending & set(self.ends)
        assert all(count == 1 for count in self.ends.values())


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
