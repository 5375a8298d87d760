"""What was freed last is used again first; what was freed first is given back first."""

from __future__ import annotations

from offloop.wire.space import PAGE
from offloop.wire.warm import NEVER, WarmRanges

LARGE = 2**40


def ranges(*parts):
    warm = WarmRanges()
    for offset, size, backed in parts:
        warm.add((offset * PAGE, size * PAGE, backed * PAGE))
    return warm


def test_what_was_freed_last_is_found_first():
    warm = ranges((0, 8, 8), (8, 8, 8), (16, 4, 4))
    found = warm.find(8 * PAGE, LARGE)
    assert found.offset == 8 * PAGE
    warm.remove(found)
    assert warm.find(8 * PAGE, LARGE).offset == 0
    assert warm.backed == 12 * PAGE
    assert len(warm) == 2


def test_only_a_range_that_is_large_enough_and_not_too_large_is_found():
    warm = ranges((0, 9, 9))
    assert warm.find(8 * PAGE, LARGE).size == 9 * PAGE
    assert warm.find(8 * PAGE, 8 * PAGE) is None
    assert warm.find(9 * PAGE + 1, LARGE) is None
    assert warm.find(16 * PAGE, LARGE) is None


def test_a_class_that_became_empty_has_nothing():
    warm = ranges((0, 8, 8))
    warm.remove(warm.find(8 * PAGE, LARGE))
    assert warm.find(8 * PAGE, LARGE) is None
    assert (len(warm), warm.backed, warm.first_seen()) == (0, 0, NEVER)


def test_what_was_freed_first_is_cut_first_from_its_end():
    warm = ranges((0, 16, 14), (16, 8, 8))
    assert warm.cut(4 * PAGE) == (10 * PAGE, 6 * PAGE, 4 * PAGE)
    assert warm.backed == 18 * PAGE
    # What is left of it is still the first, and may be used.
    assert warm.find(10 * PAGE, LARGE).offset == 0
    assert warm.cut(PAGE) == (9 * PAGE, PAGE, PAGE)


def test_less_than_a_page_costs_a_page():
    assert ranges((0, 16, 16)).cut(1) == (15 * PAGE, PAGE, PAGE)


def test_what_would_be_left_too_small_goes_as_well():
    warm = ranges((0, 8, 7))
    assert warm.cut(4 * PAGE) == (0, 8 * PAGE, 7 * PAGE)
    assert len(warm) == 0


def test_no_more_is_cut_than_the_coldest_has():
    warm = ranges((0, 8, 8), (8, 8, 8))
    assert warm.cut(LARGE) == (0, 8 * PAGE, 8 * PAGE)
    assert warm.backed == 8 * PAGE


def test_memory_counts_in_whole_pages():
    warm = WarmRanges()
    warm.add((0, 8 * PAGE, 5 * PAGE + 1))
    assert warm.backed == 6 * PAGE


def test_each_range_is_seen_once_and_the_rest_of_one_keeps_its_time():
    warm = ranges((0, 16, 16))
    warm.see(1.0)
    warm.add((16 * PAGE, 8 * PAGE, 8 * PAGE))
    warm.see(2.0)
    assert warm.first_seen() == 1.0
    warm.cut(4 * PAGE)
    assert warm.first_seen() == 1.0
    warm.cut(LARGE)
    assert warm.first_seen() == 2.0


def test_what_was_cut_before_it_was_seen_is_seen_later():
    warm = ranges((0, 16, 16), (16, 8, 8))
    warm.cut(4 * PAGE)
    assert warm.first_seen() == NEVER
    warm.see(3.0)
    assert warm.first_seen() == 3.0
    warm.cut(LARGE)
    assert warm.first_seen() == 3.0
