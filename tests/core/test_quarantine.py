"""A function that kills worker after worker is not run for a while."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from offloop.core.job import JobRecord, JobState, Terms
from offloop.core.policies import RunTime
from offloop.core.quarantine import Quarantine

FIRST, LONGEST = 5.0, 300.0


class Function:
    """One function among suspects, and a clock."""

    def __init__(self):
        self.quarantine = Quarantine()
        self.cost = RunTime()
        self.now = 1000.0
        self.last = 0

    def job(self, cost=None):
        self.last += 1
        return JobRecord(self.last, Terms(cost or self.cost))

    def send(self, job=None):
        job = job or self.job()
        job.move(JobState.SENT)
        self.quarantine.sent(job)
        return job

    def die(self, job=None):
        job = job or self.send()
        refused = self.quarantine.died(job, f"loss {job.id}", self.now)
        job.move(JobState.FAILED)
        return refused

    def refusal(self, job=None):
        return self.quarantine.refuses(job or self.job(), self.now)


def quarantined():
    function = Function()
    assert [function.die() for _ in range(5)] == [False] * 4 + [True]
    return function


def test_five_deaths_in_a_row_are_one_too_many():
    function = quarantined()
    refusal = function.refusal()
    assert (refusal.deaths, refusal.retry_after, refusal.loss) == (5, 5.0, "loss 5")
    function.now += 2
    assert function.refusal().retry_after == 3.0
    assert function.refusal(function.job(RunTime())) is None


def test_a_job_that_lives_ends_the_row():
    function = Function()
    for _ in range(4):
        function.die()
    function.quarantine.lived(function.send())
    assert not any(function.die() for _ in range(4))
    assert function.refusal() is None


def test_deaths_that_are_far_apart_are_no_row():
    function = Function()
    for _ in range(20):
        assert not function.die()
        function.now += 61
    assert function.refusal() is None


def test_calls_with_a_chunk_are_calls_of_the_same_function():
    function = quarantined()
    chunks = RunTime(function.cost)
    assert function.refusal(function.job(chunks)) is not None
    function.quarantine.lived(function.job(chunks))
    assert function.refusal() is None


def test_when_the_time_is_over_one_job_is_tried_and_its_life_ends_it():
    function = quarantined()
    function.now += FIRST
    assert function.refusal() is None
    probe = function.send()
    refusal = function.refusal()
    assert refusal.retry_after == 0.0
    function.quarantine.lived(probe)
    assert function.refusal() is None
    assert not function.quarantine.suspects


def test_if_it_kills_again_the_time_doubles_up_to_a_limit():
    function = quarantined()
    term = FIRST
    for _ in range(10):
        assert function.refusal().retry_after == term
        function.now += term
        assert function.die()
        term = min(2 * term, LONGEST)
    assert function.refusal().retry_after == LONGEST
    function.quarantine.check()


def test_a_probe_that_was_given_up_is_followed_by_another_one():
    function = quarantined()
    function.now += FIRST
    probe = function.send()
    assert function.refusal() is not None
    probe.move(JobState.CANCELLED)
    assert function.refusal() is None


def test_deaths_of_those_that_were_on_their_way_do_not_lengthen_it():
    function = Function()
    late = function.send()
    for _ in range(5):
        function.die()
    function.now += 1
    assert function.die(late)
    assert function.refusal().retry_after == 4.0
    assert function.refusal().deaths == 6


@given(st.lists(st.sampled_from(["die", "live", "ask", "wait", "cancel"]), max_size=60))
def test_nobody_is_refused_for_ever_and_nobody_without_a_reason(steps):
    function = Function()
    row, until, term = 0, -inf, 0.0
    probe, running = None, []
    for step in steps:
        if step == "wait":
            function.now += 2.5
        elif step == "ask":
            tried = probe is not None and probe.state is JobState.SENT
            refusal = function.refusal(job := function.job())
            expected = term > 0 and (function.now < until or tried)
            assert (refusal is not None) == expected
            if refusal is None:
                running.append(function.send(job))
                probe = job if term else None
            else:
                assert refusal.retry_after == max(until - function.now, 0.0)
        elif running:
            job = running.pop()
            if step == "die":
                function.die(job)
                row += 1
                if row >= 5 and (not term or job is probe):
                    term = min(2 * term, LONGEST) or FIRST
                    until, probe = function.now + term, None
            elif step == "live":
                function.quarantine.lived(job)
                job.move(JobState.DONE)
                row, until, term, probe = 0, -inf, 0.0, None
            else:
                job.move(JobState.CANCELLED)
        function.quarantine.check()
