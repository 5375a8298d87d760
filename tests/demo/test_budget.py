"""The memory that uploads may take together."""

from __future__ import annotations

import contextlib

import pytest

from offloop.demo.budget import Budget
from offloop.demo.problems import Problem


def test_what_is_held_is_given_back():
    budget = Budget(100, lambda: 3)
    with budget.hold() as one, budget.hold() as two:
        one.grow(40)
        two.grow(60)
        assert budget.used == 100
        with pytest.raises(Problem) as refused:
            two.grow(1)
        assert refused.value.status == 429
        assert refused.value.headers == {"Retry-After": "3"}
        assert budget.used == 100
    assert budget.used == 0


def test_it_is_given_back_after_an_error():
    budget = Budget(100, lambda: 3)
    with contextlib.suppress(ZeroDivisionError), budget.hold() as hold:
        hold.grow(7)
        hold.grow(1 // 0)
    assert budget.used == 0
