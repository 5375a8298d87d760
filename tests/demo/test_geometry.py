"""Fits: sizes by the words of CSS, for any source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.demo.geometry import layout
from offloop.demo.recipe import FITS, Recipe

SIDES = st.integers(1, 8192)


@pytest.mark.parametrize(
    ("fit", "width", "height", "scaled", "canvas"),
    [
        ("inside", 200, 200, (200, 100), (200, 100)),
        ("inside", 800, 800, (400, 200), (400, 200)),
        ("inside", None, 50, (100, 50), (100, 50)),
        ("inside", None, 500, (400, 200), (400, 200)),
        ("outside", 200, 200, (400, 200), (400, 200)),
        ("outside", 800, 100, (800, 400), (800, 400)),
        ("outside", 800, None, (800, 400), (800, 400)),
        ("contain", 200, 200, (200, 100), (200, 200)),
        ("contain", 800, 800, (800, 400), (800, 800)),
        ("contain", 800, None, (800, 400), (800, 400)),
        ("cover", 100, 100, (100, 100), (100, 100)),
        ("cover", None, 400, (800, 400), (800, 400)),
        ("fill", 30, 300, (30, 300), (30, 300)),
        ("fill", 30, None, (30, 200), (30, 200)),
        ("fill", None, 30, (400, 30), (400, 30)),
        *((fit, None, None, (400, 200), (400, 200)) for fit in FITS),
    ],
)
def test_a_400_by_200_source(fit, width, height, scaled, canvas):
    plan = layout(400, 200, Recipe(width=width, height=height, fit=fit))
    assert (plan.scaled, plan.canvas) == (scaled, canvas)


def test_cover_uses_the_largest_part_that_has_the_shape():
    plan = layout(400, 200, Recipe(width=100, height=100, fit="cover"))
    assert plan.crop == (200, 200)
    assert layout(400, 200, Recipe(width=100, height=100)).crop == (400, 200)


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(FITS))
def test_no_source_breaks_a_promise(width, height, wanted_width, wanted_height, fit):
    recipe = Recipe(width=wanted_width, height=wanted_height, fit=fit)
    plan = layout(width, height, recipe)
    wanted = (wanted_width, wanted_height)
    assert min(plan.scaled) >= 1
    assert plan.crop[0] <= width
    assert plan.crop[1] <= height
    if fit in ("contain", "cover", "fill"):
        assert plan.canvas == wanted
    if fit == "inside":
        assert all(a <= b for a, b in zip(plan.canvas, wanted, strict=True))
    if fit == "outside":
        assert all(a >= b for a, b in zip(plan.canvas, wanted, strict=True))
