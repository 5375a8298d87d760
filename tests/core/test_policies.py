"""Run times, delays and drain rates."""

from __future__ import annotations

import statistics
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.core.policies import (
    ChunkSize,
    DrainRate,
    OwnRun,
    RunTime,
    restart_delay,
    retry_delay,
    spread,
)

units = st.floats(0, 1, exclude_max=True)


def after(*times: float) -> RunTime:
    cost = RunTime()
    for run_time in times:
        cost.observe(run_time)
    return cost


def test_a_function_is_unknown_until_it_has_run_eight_times():
    assert after(*[1e-5] * 7).estimate == inf
    assert after(*[1e-5] * 8).estimate == pytest.approx(1e-5)


def test_one_long_run_lifts_the_estimate_at_once():
    cost = after(*[1e-5] * 100, 0.5)
    assert cost.estimate == 0.5


def test_a_long_run_is_remembered_for_many_short_ones():
    cost = after(*[1e-5] * 8, 0.5, *[1e-5] * 64)
    assert cost.estimate > 0.1
    for _ in range(2000):
        cost.observe(1e-5)
    assert cost.estimate == pytest.approx(1e-5, rel=0.01)


def test_one_that_wants_a_worker_for_itself_is_never_called_short():
    cost = OwnRun()
    for _ in range(100):
        cost.observe(1e-5)
    assert cost.estimate == inf
    assert cost.likely == pytest.approx(1e-5)


def test_a_brief_run_that_lost_its_core_does_not_make_the_others_long():
    cost = after(*[1e-4] * 64, 0.004, *[1e-4] * 8)
    assert 1e-4 < cost.estimate < 2e-4


def test_brief_runs_are_averaged_over_the_latest():
    cost = after(*[1e-4] * 1000, *[1e-3] * 64)
    assert 5e-4 < cost.estimate < 1e-3
    for _ in range(1000):
        cost.observe(1e-3)
    assert cost.estimate == pytest.approx(1e-3)


@given(st.lists(st.floats(0, 100), min_size=8, max_size=100), st.integers(1, 8))
def test_the_estimate_is_no_run_that_never_was(times, at_once):
    cost = RunTime()
    for start in range(0, len(times), at_once):
        cost.observe_all(times[start : start + at_once])
    assert min(times) - 1e-9 <= cost.estimate <= max(times) + 1e-9


@given(st.lists(st.floats(0.006, 100), min_size=8, max_size=100))
def test_the_estimate_of_long_runs_is_above_the_last_one(times):
    assert after(*times).estimate >= times[-1] - 1e-9


@given(st.integers(0, 10_000), units)
def test_retry_delays_grow_to_a_limit(attempt, u):
    assert 0 <= retry_delay(attempt + 1, u) <= min(30.0, 0.1 * 2 ** min(attempt, 30))


def test_retry_delays_double():
    assert [retry_delay(attempt, 0.5) for attempt in (1, 2, 3)] == [0.05, 0.1, 0.2]
    assert retry_delay(50, 0.999) == pytest.approx(29.97)


def test_the_first_restart_is_immediate():
    assert restart_delay(0, 0.5) == restart_delay(1, 0.999) == 0.0


def test_later_restarts_back_off():
    delays = [restart_delay(failures, 0.5) for failures in (2, 3, 4, 5)]
    assert delays == [0.05, 0.1, 0.2, 0.4]
    assert restart_delay(10**9, 0.5) == 15.0


@given(st.integers(0, 2**63), st.integers(0, 2**63))
def test_spread_gives_numbers_in_range_and_always_the_same(first, second):
    assert 0.0 <= spread(first, second) < 1.0
    assert spread(first, second) == spread(first, second)


def test_spread_is_even_over_neighbours():
    values = [spread(job, attempt) for job in range(500) for attempt in range(1, 5)]
    assert abs(statistics.fmean(values) - 0.5) < 0.02
    deciles = [sum(int(value * 10) == d for value in values) for d in range(10)]
    assert min(deciles) > 150


def test_the_drain_rate_is_unknown_before_a_job_has_ended():
    rate = DrainRate()
    rate.resumed(5.0)
    assert rate.next_end(5.0) is None


def test_the_first_endings_give_a_first_guess():
    rate = DrainRate()
    rate.resumed(5.0)
    rate.ended(6.0)
    rate.ended(7.0)
    assert rate.next_end(7.0) == 1.0


def drain(rate: DrainRate, start: float, gap: float, count: int) -> float:
    now = start
    for _ in range(count):
        now += gap
        rate.ended(now)
    return now


def test_the_drain_rate_follows_a_change_of_pace():
    rate = DrainRate()
    rate.resumed(0.0)
    now = drain(rate, 0.0, 0.5, 320)
    assert rate.next_end(now) == pytest.approx(0.5)
    now = drain(rate, now, 0.01, 3200)
    assert rate.next_end(now) == pytest.approx(0.01, rel=0.1)


def test_time_without_jobs_does_not_slow_the_rate():
    rate = DrainRate()
    now = 0.0
    for _ in range(100):
        now += 3600.0
        rate.resumed(now)
        now = drain(rate, now, 0.5, 3)
    assert rate.next_end(now) == pytest.approx(0.5)


def test_endings_in_bursts_count_as_the_average():
    rate = DrainRate()
    rate.resumed(0.0)
    for turn in range(1, 65):
        for _ in range(16):
            rate.ended(float(turn))
    assert rate.next_end(64.0) == pytest.approx(1 / 16, rel=0.1)


def test_a_silence_makes_the_guess_longer():
    rate = DrainRate()
    rate.resumed(0.0)
    now = drain(rate, 0.0, 0.5, 64)
    assert rate.next_end(now + 60.0) == 60.0


def test_a_chunk_begins_with_one_item_and_grows_as_items_prove_short():
    size = ChunkSize()
    sizes = []
    for _ in range(6):
        sizes.append(size.items)
        size.ran(size.items, size.items * 1e-6)
    assert sizes[:5] == [1, 8, 64, 512, 4096]
    assert sizes[5] == pytest.approx(10_000, abs=1)


def test_long_items_go_one_by_one():
    size = ChunkSize()
    size.ran(1, 1.0)
    assert size.items == 1


def test_an_item_that_is_slower_counts_at_once_and_a_faster_one_little_by_little():
    size = ChunkSize()
    size.ran(1000, 1000 * 1e-5)
    assert size.items == pytest.approx(1000, abs=1)
    size.ran(1000, 1000 * 1e-3)
    assert size.items == 10
    size.ran(1000, 1000 * 1e-5)
    assert size.items == 13


def test_a_chunk_is_no_larger_than_what_the_loop_can_make_in_a_moment():
    size = ChunkSize()
    size.made(100, 100 * 1e-5)
    size.ran(1000, 1000 * 1e-7)
    assert size.items == pytest.approx(50, abs=1)


def test_a_chunk_takes_a_small_part_of_the_time_that_a_job_may():
    size = ChunkSize(run_timeout=0.01)
    size.ran(1000, 1000 * 1e-5)
    assert size.items == pytest.approx(100, abs=1)
