"""Durations tell percentiles within their bound, and merge without loss."""

from __future__ import annotations

import json
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.telemetry.durations import Durations

SHARES = (0.0, 0.5, 0.95, 0.99, 1.0)

times = st.floats(0, 1e6)


def of(*values):
    made = Durations()
    for value in values:
        made.add(value)
    return made


def near(value):
    return pytest.approx(value, rel=0.01, abs=1.1e-7)


@given(st.lists(times, min_size=1, max_size=600))
def test_each_percentile_is_near_a_value_of_that_rank(values):
    seen = of(*values)
    values.sort()
    for share, found in zip(SHARES, seen.quantiles(SHARES), strict=True):
        rank = max(ceil(share * len(values)), 1)
        assert found == near(values[rank - 1])
    assert seen.count == len(values)
    assert seen.total == pytest.approx(sum(values))
    assert seen.largest == values[-1] == near(seen.quantiles((1.0,))[0])


@given(st.lists(times, max_size=300), st.lists(times, max_size=300))
def test_two_together_are_what_one_would_be_that_had_seen_all(one, two):
    merged, whole = of(*one) + of(*two), of(*one, *two)
    assert merged.count == whole.count
    assert merged.quantiles(SHARES) == whole.quantiles(SHARES)
    assert merged.largest == whole.largest
    assert merged.total == pytest.approx(whole.total)


@given(st.lists(st.tuples(times, st.integers(1, 9)), max_size=30))
def test_one_that_stands_for_several_counts_as_often(pairs):
    several, singly = Durations(), Durations()
    for value, often in pairs:
        several.add(value, often)
        for _ in range(often):
            singly.add(value)
    assert several.count == singly.count
    assert several.quantiles(SHARES) == singly.quantiles(SHARES)
    assert several.mean == pytest.approx(singly.mean)


@given(st.lists(times, max_size=50), st.lists(times, max_size=8))
def test_those_up_to_a_bound_are_counted_to_a_hundredth_of_it(values, bounds):
    bounds.sort()
    found = of(*values).up_to(bounds)
    for bound, count in zip(bounds, found, strict=True):
        least = sum(value < bound * 0.98 - 1e-6 for value in values)
        most = sum(value <= bound * 1.02 + 1e-6 for value in values)
        assert least <= count <= most
    assert found == sorted(found)


def test_a_copy_does_not_change():
    seen = of(1.0, 2.0)
    copy = seen.copy()
    seen.add(5.0)
    seen.add(6.0)
    assert (copy.count, copy.largest, copy.mean) == (2, 2.0, 1.5)
    assert (seen.count, seen.largest, seen.mean) == (4, 6.0, 3.5)


def test_what_it_tells():
    seen = of(*[0.001] * 90, *[0.1] * 8, 1.0, 2.0)
    assert seen.p50 == near(0.001)
    assert seen.p95 == near(0.1)
    assert seen.p99 == near(1.0)
    assert json.loads(json.dumps(seen.as_dict())) == {
        "count": 100,
        "mean": pytest.approx(0.0389),
        "p50": near(0.001),
        "p95": near(0.1),
        "p99": near(1.0),
        "largest": 2.0,
    }
    assert repr(seen).startswith("<Durations: 100, p50 0.00")
    seen.add(-1e-9)  # clocks of two processes
    assert seen.quantiles((0.0,)) == [near(0.0)]


def test_none_is_no_time():
    none = Durations()
    assert (none.count, none.mean, none.largest, none.p99) == (0, 0.0, 0.0, 0.0)
    assert none.up_to((1.0, 2.0)) == [0, 0]
