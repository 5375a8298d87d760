"""What falls due when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from offloop.core.timers import Timers


def pop_all(timers: Timers, now: float) -> list[int]:
    keys = []
    while (key := timers.pop_due(now)) is not None:
        keys.append(key)
    return keys


def test_nothing_is_due_without_keys():
    timers = Timers()
    assert timers.next_due() is None
    assert timers.pop_due(1e9) is None
    assert not len(timers)


def test_keys_fall_due_in_the_order_of_their_times():
    timers = Timers()
    for key, when in [(1, 3.0), (2, 1.0), (3, 2.0)]:
        timers.set(key, when)
    assert timers.next_due() == 1.0
    assert pop_all(timers, 2.5) == [2, 3]
    assert list(timers) == [1]


def test_a_key_is_due_at_its_very_time():
    timers = Timers()
    timers.set(1, 2.0)
    assert timers.pop_due(1.999) is None
    assert timers.pop_due(2.0) == 1


def test_a_key_falls_due_once():
    timers = Timers()
    timers.set(1, 2.0)
    timers.set(1, 2.0)
    assert pop_all(timers, 9.0) == [1]


def test_setting_a_key_anew_moves_it_both_ways():
    timers = Timers()
    timers.set(1, 2.0)
    timers.set(1, 5.0)
    assert timers.next_due() == 5.0
    timers.set(1, 1.0)
    assert timers.next_due() == 1.0
    assert pop_all(timers, 9.0) == [1]


def test_a_dropped_key_never_falls_due():
    timers = Timers()
    timers.set(1, 2.0)
    timers.drop(1)
    timers.drop(1)
    timers.drop(99)
    assert timers.next_due() is None
    assert pop_all(timers, 9.0) == []


def test_dropped_keys_leave_nothing_behind():
    timers = Timers()
    for key in range(10_000):
        timers.set(key, 1e6 + key)
    for key in range(10_000):
        timers.drop(key)
        if key % 500 == 0:
            timers.check()
    assert len(timers._heap) <= 64


def test_keys_set_again_and_again_leave_nothing_behind():
    timers = Timers()
    for turn in range(10_000):
        timers.set(turn % 3, 1e6 - turn)
    timers.check()
    assert len(timers._heap) <= 64 + 2 * 3
    assert len(timers) == 3


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("set"), st.integers(0, 9), st.integers(0, 50)),
            st.tuples(st.just("drop"), st.integers(0, 9), st.none()),
            st.tuples(st.just("pop"), st.none(), st.integers(0, 50)),
        ),
        max_size=200,
    )
)
def test_it_behaves_like_a_dictionary_sorted_by_time(steps):
    timers, model = Timers(), {}
    for step, key, when in steps:
        if step == "set":
            timers.set(key, when)
            model[key] = when
        elif step == "drop":
            timers.drop(key)
            model.pop(key, None)
        else:
            due = [(at, key) for key, at in model.items() if at <= when]
            popped = pop_all(timers, when)
            assert popped == [key for _, key in sorted(due)]
            for key in popped:
                del model[key]
        assert timers.next_due() == min(model.values(), default=None)
        assert set(timers) == set(model)
        timers.check()
