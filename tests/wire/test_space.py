"""Ranges are handed out once, and put together again when they come back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.wire.space import (
    PAGE,
    SMALLEST,
    Space,
    class_below,
    class_size,
    whole_pages,
)

SIZE = 1024 * PAGE


@pytest.mark.parametrize(
    ("size", "pages"), [(0, 0), (1, 1), (PAGE, 1), (PAGE + 1, 2), (3 * PAGE, 3)]
)
def test_bytes_take_whole_pages(size, pages):
    assert whole_pages(size) == pages * PAGE


def test_there_are_four_classes_for_each_doubling():
    wanted = [4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24]
    found = sorted({class_size(size) for size in range(1, 24 * PAGE, PAGE // 2)})
    assert found == [pages * PAGE for pages in wanted]


@given(st.integers(1, 2**45))
def test_a_class_is_at_most_a_quarter_larger_than_what_is_in_it(size):
    room = class_size(size)
    assert room % PAGE == 0
    assert size <= room <= max(SMALLEST, size * 5 / 4 + 1)
    assert class_size(room) == room
    # Whatever is not smaller than the class is in its bin or in one behind it.
    assert class_below(room) > class_below(room - 1)


def test_a_range_that_is_taken_is_not_free():
    space = Space(SIZE)
    assert space.ranges() == [(0, SIZE)]
    assert space.take(8 * PAGE) == 0
    assert space.ranges() == [(8 * PAGE, SIZE - 8 * PAGE)]


def test_all_of_it_can_be_taken_at_once():
    space = Space(SIZE)
    assert space.fits(SIZE)
    assert space.take(SIZE) == 0
    assert space.ranges() == []
    assert not space.fits(PAGE)
    assert space.take(PAGE) is None
    space.give(0, SIZE)
    assert space.take(SIZE) == 0


def test_the_smallest_range_that_is_large_enough_is_taken():
    space = Space(SIZE)
    small, _, large, _ = (space.take(pages * PAGE) for pages in (8, 4, 64, 4))
    space.give(large, 64 * PAGE)
    space.give(small, 8 * PAGE)
    assert space.take(6 * PAGE) == small
    assert space.take(16 * PAGE) == large


def test_neighbours_become_one_in_either_order():
    for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 1, 0]):
        space = Space(SIZE)
        offsets = [space.take(8 * PAGE) for _ in range(3)]
        for index in order:
            space.give(offsets[index], 8 * PAGE)
        assert space.ranges() == [(0, SIZE)]


@given(st.data())
def test_nothing_is_handed_out_twice_and_nothing_is_lost(data):
    space = Space(SIZE)
    taken: dict[int, int] = {}
    for _ in range(data.draw(st.integers(0, 30))):
        if taken and data.draw(st.booleans()):
            offset = data.draw(st.sampled_from(sorted(taken)))
            space.give(offset, taken.pop(offset))
        else:
            size = data.draw(st.integers(1, SIZE // PAGE // 3)) * PAGE
            fits = space.fits(size)
            offset = space.take(size)
            assert fits == (offset is not None)
            if offset is not None:
                taken[offset] = size
        end = 0
        for begin, size in sorted([*taken.items(), *space.ranges()]):
            assert begin == end
            end += size
        assert end == SIZE
    for offset, size in taken.items():
        space.give(offset, size)
    assert space.ranges() == [(0, SIZE)]
