"""A pool grows while jobs wait, and shrinks when workers have nothing to do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.core.elastic import GROW_AFTER, Elastic

LONG = GROW_AFTER


def test_it_begins_with_the_least():
    assert Elastic(2, 8, 60.0).target == 2


def test_while_nobody_is_there_no_job_waits():
    elastic = Elastic(0, 8, 60.0)
    assert elastic.jobs_waited(100, 0.0, 0)
    assert elastic.target == 1


def test_a_job_that_has_not_waited_long_is_no_reason():
    elastic = Elastic(1, 8, 60.0)
    assert not elastic.jobs_waited(1000, LONG * 0.99, 0)
    assert elastic.target == 1


def test_under_load_it_doubles_up_to_the_most():
    elastic = Elastic(1, 12, 60.0)
    sizes = []
    while elastic.jobs_waited(100, LONG, 0):
        sizes.append(elastic.target)
    assert sizes == [2, 4, 8, 12]
    assert not elastic.may_grow


def test_it_does_not_grow_beyond_what_waits():
    elastic = Elastic(4, 12, 60.0)
    assert elastic.jobs_waited(1, LONG, 0)
    assert elastic.target == 5


@pytest.mark.parametrize(("starting", "grows"), [(0, True), (2, True), (3, False)])
def test_workers_that_start_count_for_a_job_each(starting, grows):
    assert Elastic(4, 12, 60.0).jobs_waited(3, LONG, starting) is grows


def test_a_worker_that_stays_idle_goes():
    elastic = Elastic(0, 8, 10.0)
    elastic.target = 2
    assert elastic.workers_idled({1: 0.5, 2: 0.7}, 100.0) == []
    assert elastic.workers_idled({1: 0.5, 2: 104.0}, 105.0) == [], "2 has worked"
    assert elastic.workers_idled({1: 0.5, 2: 104.0}, 110.0) == [1]
    assert elastic.target == 1
    assert elastic.workers_idled({2: 104.0}, 115.0) == [2]
    assert elastic.target == 0


def test_a_worker_that_is_busy_at_a_look_is_not_idle():
    elastic = Elastic(0, 8, 10.0)
    elastic.target = 1
    elastic.workers_idled({1: 0.5}, 100.0)
    elastic.workers_idled({}, 105.0)
    assert elastic.workers_idled({1: 0.5}, 111.0) == []


def test_the_least_stay():
    elastic = Elastic(2, 8, 10.0)
    elastic.target = 4
    idle = dict.fromkeys(range(4), 0.0)
    elastic.workers_idled(idle, 100.0)
    assert elastic.workers_idled(idle, 110.0) == [0, 1]
    assert elastic.workers_idled(idle, 200.0) == []


def test_bounds_may_change():
    elastic = Elastic(2, 8, 10.0)
    elastic.target = 8
    elastic.bound(4)
    assert elastic.target == 4
    elastic.bound(1)
    assert elastic.target == 1
    elastic.bound(3)
    assert elastic.target == 1
    assert elastic.may_grow


def test_when_to_look_again():
    elastic = Elastic(1, 2, 10.0)
    assert elastic.next_look(0) is None
    assert elastic.next_look(5) == GROW_AFTER
    elastic.target = 2
    assert elastic.next_look(0) == 2.5
    assert elastic.next_look(5) == 2.5, "it cannot grow"


@given(
    st.integers(0, 5),
    st.integers(0, 5),
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 50), st.floats(0, 1), st.integers(0, 9)),
            st.dictionaries(st.integers(0, 9), st.floats(0, 100)),
            st.integers(1, 12),
        )
    ),
)
def test_the_target_stays_within_its_bounds(least, more, events):
    most = max(least + more, 1)
    elastic = Elastic(least, most, 10.0)
    now = 100.0
    for event in events:
        now += 6.0
        before = elastic.target
        if isinstance(event, tuple):
            assert elastic.jobs_waited(*event) is (elastic.target > before)
        elif isinstance(event, dict):
            leaving = elastic.workers_idled(event, now)
            assert elastic.target == before - len(leaving)
        else:
            most = event
            least = min(least, most)
            elastic.bound(most)
        assert least <= elastic.target <= most
