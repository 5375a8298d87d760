"""Fits: sizes by the words of CSS, for any source."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.demo.geometry import in_file, layout, turned, upright
from offloop.demo.problems import Problem
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
        ("outside", 800, 100, (400, 200), (400, 200)),
        ("contain", 200, 200, (200, 100), (200, 200)),
        ("contain", 800, 800, (400, 200), (800, 800)),
        ("contain", 800, None, (400, 200), (400, 200)),
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


@pytest.mark.parametrize(
    ("fit", "width", "height", "scaled", "canvas"),
    [
        ("inside", 800, 800, (800, 400), (800, 400)),
        ("outside", 800, 100, (800, 400), (800, 400)),
        ("outside", 800, None, (800, 400), (800, 400)),
        ("contain", 800, 800, (800, 400), (800, 800)),
        ("contain", 800, None, (800, 400), (800, 400)),
    ],
)
def test_it_is_enlarged_if_it_is_asked_for(fit, width, height, scaled, canvas):
    recipe = Recipe(width=width, height=height, fit=fit, enlarge=True)
    plan = layout(400, 200, recipe)
    assert (plan.scaled, plan.canvas) == (scaled, canvas)


def test_cover_uses_the_largest_part_that_has_the_shape():
    plan = layout(400, 200, Recipe(width=100, height=100, fit="cover"))
    assert plan.crop == (100, 0, 300, 200)
    whole = layout(400, 200, Recipe(width=100, height=100))
    assert whole.crop == (0, 0, 400, 200)


@pytest.mark.parametrize(
    ("gravity", "left"), [("west", 0), ("center", 100), ("southeast", 200)]
)
def test_cover_keeps_in_view_what_it_is_told(gravity, left):
    recipe = Recipe(width=50, height=50, fit="cover", gravity=gravity)
    assert layout(400, 200, recipe).crop == (left, 0, left + 200, 200)
    assert layout(400, 200, recipe, (0.25, 0.5)).crop == (50, 0, 250, 200)


def test_a_part_is_what_is_fitted():
    recipe = Recipe(crop=(10, 20, 100, 50), width=50, height=50, fit="cover")
    plan = layout(400, 200, recipe)
    assert (plan.crop, plan.canvas) == ((35, 20, 85, 70), (50, 50))
    assert layout(400, 200, Recipe(crop=(10, 20, 100, 50))).canvas == (100, 50)


@pytest.mark.parametrize("crop", [(301, 0, 100, 10), (0, 0, 400, 201)])
def test_a_part_outside_of_the_image_is_refused(crop):
    with pytest.raises(Problem, match="the image at 400,200") as refused:
        layout(400, 200, Recipe(crop=crop))
    assert (refused.value.status, refused.value.param) == (422, "crop")


def apply(orientation, pixels):
    """Return rows of an upright image, read from the rows of its file."""
    width, height = upright((len(pixels[0]), len(pixels)), orientation)
    rows = []
    for y in range(height):
        boxes = [
            in_file((x, y, x + 1, y + 1), (width, height), orientation)
            for x in range(width)
        ]
        rows.append([pixels[int(top)][int(left)] for left, top, _, _ in boxes])
    return rows


FILE = [["a", "b", "c"], ["d", "e", "f"]]


@pytest.mark.parametrize(
    ("orientation", "rows"),
    [
        (1, ["abc", "def"]),
        (2, ["cba", "fed"]),
        (3, ["fed", "cba"]),
        (4, ["def", "abc"]),
        (5, ["ad", "be", "cf"]),
        (6, ["da", "eb", "fc"]),
        (7, ["fc", "eb", "da"]),
        (8, ["cf", "be", "ad"]),
    ],
)
def test_each_orientation_says_where_the_pixels_lie(orientation, rows):
    assert ["".join(row) for row in apply(orientation, FILE)] == rows


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("flop", [False, True])
def test_two_turns_are_one(orientation, rotate, flip, flop):
    rows = apply(orientation, FILE)
    for _ in range(rotate // 90):
        rows = [list(column) for column in zip(*rows[::-1], strict=True)]
    rows = rows[::-1] if flip else rows
    rows = [row[::-1] for row in rows] if flop else rows
    recipe = Recipe(rotate=rotate, flip=flip, flop=flop)
    assert apply(turned(orientation, recipe), FILE) == rows


@given(*[SIDES] * 4, st.sampled_from(FITS), st.booleans())
def test_no_source_breaks_a_promise(
    width, height, wanted_width, wanted_height, fit, enlarge
):
    recipe = Recipe(width=wanted_width, height=wanted_height, fit=fit, enlarge=enlarge)
    plan = layout(width, height, recipe)
    wanted = (wanted_width, wanted_height)
    assert min(plan.scaled) >= 1
    left, top, right, bottom = plan.crop
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if fit in ("contain", "cover", "fill"):
        assert plan.canvas == wanted
    if fit == "inside":
        assert all(a <= b for a, b in zip(plan.canvas, wanted, strict=True))
    if fit == "outside" and enlarge:
        assert all(a >= b for a, b in zip(plan.canvas, wanted, strict=True))
