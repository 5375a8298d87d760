"""How far a generator may be ahead, as both ends count it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.wire import flow
from offloop.wire.flow import BYTES_AHEAD, Allowance, Takings

sizes = st.lists(st.integers(0, 2 * BYTES_AHEAD), min_size=1, max_size=60)


def test_an_allowance_is_spent_by_parts_and_by_bytes():
    by_parts = Allowance(2)
    by_parts.spend(1)
    assert not by_parts.spent
    by_parts.spend(1)
    assert by_parts.spent
    by_parts.refill(1, 1)
    assert not by_parts.spent
    by_bytes = Allowance(9)
    by_bytes.spend(BYTES_AHEAD)
    assert by_bytes.spent
    by_bytes.refill(1, BYTES_AHEAD)
    assert not by_bytes.spent


def test_what_was_taken_is_told_when_it_is_half():
    takings = Takings(4)
    assert takings.take(1, 10) is None
    assert takings.take(1, 10) == (2, 20)
    assert takings.take(1, BYTES_AHEAD // 2) == (1, BYTES_AHEAD // 2)
    assert takings.take(0, 0) is None


def test_one_that_nobody_listens_to_runs_to_its_end():
    allowance = Allowance(1)
    allowance.refill(*flow.endless())
    for _ in range(1000):
        allowance.spend(BYTES_AHEAD)
    assert not allowance.spent


@given(ahead=st.integers(1, 20), sizes=sizes, data=st.data())
def test_nobody_waits_for_ever_and_nobody_runs_too_far(ahead, sizes, data):
    """The generator and its consumer take turns as they like; all parts get through."""
    allowance, takings = Allowance(ahead), Takings(ahead)
    coming, under_way, given_out, taken = list(sizes), [], [], 0
    while coming or under_way:
        may_yield = bool(coming) and not allowance.spent
        may_take = bool(under_way)
        assert may_yield or may_take, "both wait for each other"
        if may_yield and (not may_take or data.draw(st.booleans())):
            under_way.append(coming.pop(0))
            allowance.spend(under_way[-1])
        else:
            size = under_way.pop(0)
            given_out.append(size)
            taken += 1
            told = takings.take(1, size)
            if told is not None:
                allowance.refill(*told)
        assert len(under_way) <= ahead
        assert sum(under_way[:-1]) < BYTES_AHEAD
    assert given_out == sizes


def test_what_is_no_iterator_is_refused():
    flow.check(iter(()), "f")
    with pytest.raises(TypeError, match=r"f was called by `stream`.* returned list"):
        flow.check([], "f")


@pytest.mark.parametrize(
    ("payload", "size"),
    [((1,), 8), ((None,), 8), (("four",), 4), ((b"12",), 2), (b"a pickle", 8)],
)
def test_the_size_of_a_small_part(payload, size):
    assert flow.size_of(payload) == size
