"""When those who are refused should come back."""

from __future__ import annotations

import pytest

from offloop.demo.pace import Pace


def pace_of(*ends):
    pace = Pace()
    for end in ends:
        pace.note_end(end)
    return pace


def test_without_experience_it_is_soon():
    assert pace_of().retry_after(9.0, 100) == 1
    assert pace_of(8.0).retry_after(9.0, 100) == 1


def test_half_of_what_waits_must_be_done():
    steady = pace_of(*range(10))  # one each second
    assert steady.retry_after(10.0, 20) == 10


def test_a_pace_that_slackens_counts_as_slow():
    steady = pace_of(*range(10))
    assert steady.retry_after(40.0, 2) == 4


@pytest.mark.parametrize(("pending", "seconds"), [(0, 1), (10**6, 60)])
def test_it_is_neither_at_once_nor_never(pending, seconds):
    assert pace_of(*range(10)).retry_after(10.0, pending) == seconds


def test_only_the_last_ones_count():
    ends = [*range(1000), *(1000 + n / 100 for n in range(32))]
    assert pace_of(*ends).retry_after(1000.32, 100) == 1
