"""How soon a child will be used up, from how fast it was used up to now."""

from __future__ import annotations

from math import inf

from offloop.core.recycling import Wear


def test_what_is_used_up_is_due_now():
    wear = Wear()
    wear.renew(0.0)
    assert wear.observe(1.0, 1.0) == 0.0


def test_only_a_pace_that_lasts_counts():
    wear = Wear()
    wear.renew(0.0)
    assert wear.observe(0.5, 1.0) == inf  # the first job may have been like no other
    assert wear.observe(0.75, 2.0) == 1.0
    assert wear.lasts == 4.0
