"""How soon a child will be used up, from how fast it was used up to now."""

from __future__ import annotations

from math import inf, isclose

from offloop.core.recycling import Wear


def looked(*looks):
    """Return what is known of a child after some looks: shares, and when."""
    wear = Wear()
    wear.renew(0.0)
    for share, now in looks:
        wear.observe(share, now)
    return wear


def test_what_is_used_up_needs_no_further_look():
    assert looked((1.0, 1.0)).last_look <= 1.0


def test_only_a_pace_that_lasts_counts():
    first = looked((0.5, 1.0))
    assert first.last_look == inf  # the first job may have been like no other
    # A quarter a second, in looks of a second: the last one comes a second before.
    assert looked((0.5, 1.0), (0.75, 2.0)).last_look == 2.0


def test_a_fresh_child_is_likely_to_be_like_the_last_one():
    wear = looked((0.25, 1.0), (0.5, 2.0))
    wear.renew(10.0)
    assert wear.last_look == 10.0 + 4.0 - 1.0


def test_looks_at_the_same_moment_change_nothing():
    wear = looked((0.25, 1.0), (0.5, 2.0), (0.75, 2.0))
    assert isclose(wear.last_look, 3.0)
