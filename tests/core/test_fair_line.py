"""Shares of keys: by time, without saving up, without forgetting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from offloop.core.fair_line import FairLine
from offloop.core.job import JobRecord, JobState, Terms
from offloop.core.policies import RunTime


def cost(seconds: float) -> RunTime:
    known = RunTime()
    known.observe(seconds)
    return known


UNKNOWN, SHORT, LONG = RunTime(), cost(0.001), cost(0.01)


def make(key, of=UNKNOWN, number=0) -> JobRecord:
    return JobRecord(number, Terms(of, key=key))


def take(line: FairLine) -> JobRecord:
    job = line[0]
    job.move(JobState.SENT)
    assert line.popleft() is job
    line.check()
    return job


def keys(line: FairLine, count: int) -> str:
    return "".join(take(line).terms.key for _ in range(count))


def test_jobs_of_unknown_length_are_taken_in_turn():
    line = FairLine([make("a") for _ in range(4)])
    line.append(make("b"))
    line.append(make("c"))
    line.append(make("c"))
    assert keys(line, 7) == "abcacaa"
    assert not line


def test_within_a_key_first_come_is_first_served():
    line = FairLine([make("a", number=n) for n in (3, 1, 2)])
    assert [take(line).id for _ in range(3)] == [3, 1, 2]


def test_shares_are_of_time_and_not_of_jobs():
    line = FairLine()
    for _ in range(100):
        line.append(make("a", LONG))
        line.append(make("b", SHORT))
    taken = keys(line, 55)
    assert (taken.count("a"), taken.count("b")) == (5, 50)


def test_a_key_that_comes_late_does_not_claim_what_it_missed():
    line = FairLine([make("a", SHORT) for _ in range(100)])
    assert keys(line, 50) == "a" * 50
    for _ in range(50):
        line.append(make("b", SHORT))
    taken = keys(line, 20)
    assert taken.count("a") == taken.count("b") == 10


def test_a_key_that_leaves_and_comes_back_does_not_jump_the_line():
    line = FairLine([make("b", SHORT) for _ in range(100)])
    taken = ""
    for _ in range(33):
        if "a" not in [job.terms.key for job in line]:
            line.append(make("a", LONG))  # one at a time, as soon as the last one left
        taken += take(line).terms.key
    assert taken.count("a") == 3


def test_jobs_that_have_ended_count_for_nobody():
    line = FairLine()
    for _ in range(3):
        line.append(make("a", LONG))
        line.append(make("b", LONG))
    for job in list(line):
        if job.terms.key == "a":
            job.move(JobState.CANCELLED)
    assert line.popleft().terms.key == "a"  # as its queue drops it
    assert take(line).terms.key == "b"
    assert [line.popleft().terms.key for _ in range(2)] == ["a", "a"]
    line.append(make("a", LONG))
    assert keys(line, 3) == "abb"


def test_a_sweep_drops_what_has_ended():
    line = FairLine([make("a"), make("b"), make("b")])
    first, second, _ = line
    first.move(JobState.CANCELLED)
    second.move(JobState.CANCELLED)
    line.sweep()
    line.check()
    assert len(line) == 1
    assert take(line).terms.key == "b"


def test_a_million_keys_leave_nothing_behind():
    line = FairLine([make("always", SHORT) for _ in range(2000)])
    for number in range(2000):
        line.append(make(number, LONG))
        take(line)
        line.check()


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=200))
def test_nobody_who_always_waits_is_ahead_by_more_than_a_job(moves):
    """While keys have jobs of equal length waiting, their turns differ by one."""
    line = FairLine()
    for _ in range(200):
        for key in "abc":
            line.append(make(key, SHORT))
    turns = dict.fromkeys("abc", 0)
    for key, more in moves:
        if more:
            line.append(make(key, SHORT))
        turns[take(line).terms.key] += 1
        assert max(turns.values()) - min(turns.values()) <= 1
