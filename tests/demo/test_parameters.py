"""Parameters: every one is read, checked, and refused when it is not understood."""

from __future__ import annotations

import contextlib
import pickle
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.demo import parameters
from offloop.demo.parameters import PARAMETERS, Order
from offloop.demo.problems import Problem
from offloop.demo.recipe import FORMATS, GRAVITIES, Recipe

EVERYTHING = {
    "f": "webp",
    "q": "70",
    "w": "4096",
    "h": "1",
    "fit": "cover",
    "enlarge": "1",
    "dpr": "2",
    "crop": "north",
    "rotate": "90",
    "flip": "1",
    "flop": "true",
    "grayscale": "1",
    "blur": "1.5",
    "sharpen": "2",
    "background": "#08f",
    "strip": "0",
    "icc": "keep",
    "progressive": "0",
    "lossless": "1",
    "speed": "10",
    "method": "0",
    "subsampling": "4:4:4",
    "max_bytes": "9000",
    "frames": "100",
    "measure": "1",
    "priority": "high",
    "timeout": "0.5",
    "engine": "thread",
}


def order(pairs):
    return parameters.order(parameters.parse(pairs))


def test_no_parameters_mean_the_defaults():
    assert order([]) == Order(Recipe())


def test_every_parameter_is_read():
    assert len(EVERYTHING) == len(PARAMETERS)
    recipe = Recipe(
        format="webp",
        quality=70,
        width=8192,
        height=2,
        fit="cover",
        enlarge=True,
        gravity="north",
        rotate=90,
        flip=True,
        flop=True,
        grayscale=True,
        blur=1.5,
        sharpen=2.0,
        background=(0, 0x88, 255),
        strip=False,
        icc="keep",
        progressive=False,
        lossless=True,
        speed=10,
        method=0,
        subsampling="4:4:4",
        max_bytes=9000,
        frames=100,
        measure=True,
    )
    assert order(EVERYTHING.items()) == Order(recipe, 10, 0.5, "thread")


def test_every_parameter_belongs_to_a_recipe_or_to_an_order():
    known = {field.name for kind in (Recipe, Order) for field in fields(kind)}
    assert {one.field for one in PARAMETERS.values()} <= known | {"dpr"}
    assert all(one.help and one.schema for one in PARAMETERS.values())


@pytest.mark.parametrize("name", ["format", "f"])
@pytest.mark.parametrize("value", [*FORMATS, "jpg", "tif", "WebP"])
def test_formats_are_known_by_all_their_names(name, value):
    full = {"jpg": "jpeg", "tif": "tiff"}.get(value, value.lower())
    assert order([(name, value)]).recipe.format == full


def test_auto_leaves_the_choice():
    assert order([("f", "auto"), ("q", "auto")]) == order([])


def test_an_empty_field_of_a_form_is_not_given():
    assert order([("w", ""), ("format", ""), ("q", "")]) == order([])


def test_a_part_is_given_by_its_corner_and_size():
    assert order([("crop", "0,5,10,20")]).recipe.crop == (0, 5, 10, 20)


@pytest.mark.parametrize("where", [*GRAVITIES, "attention"])
def test_what_stays_in_view_is_given_by_a_word(where):
    recipe = order([("crop", where.upper()), ("fit", "cover")]).recipe
    assert (recipe.crop, recipe.gravity) == (None, where)


def test_a_word_for_what_stays_in_view_needs_something_that_cuts():
    with pytest.raises(Problem, match="add fit=cover") as refused:
        order([("crop", "north")])
    assert refused.value.param == "crop"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("f", "bmp"), ("q", "0"), ("q", "101"), ("quality", "1e1"), ("q", "best")],
        *[("w", "0"), ("w", "8193"), ("h", "-1"), ("h", "1_0"), ("h", "٣")],
        *[("w", "1" * 5000), ("fit", "stretch"), ("strip", "maybe"), ("dpr", "0.5")],
        *[
            ("dpr", "."),
            ("dpr", "nan"),
            ("blur", "51"),
            ("blur", "1e2"),
            ("blur", "-1"),
        ],
        *[("crop", "1,2,3"), ("crop", "1,2,0,4"), ("crop", "a,b,c,d"), ("crop", "up")],
        *[("rotate", "45"), ("background", "red"), ("background", "12345")],
        *[("background", "0000000000"), ("subsampling", "4:1:1"), ("max_bytes", "99")],
        *[
            ("frames", "101"),
            ("priority", "urgent"),
            ("timeout", "0"),
            ("timeout", "31"),
        ],
        *[("engine", "ray"), ("speed", "11"), ("method", "7"), ("icc", "drop")],
    ],
)
def test_a_bad_value_is_refused_by_name(name, value):
    with pytest.raises(Problem) as refused:
        order([(name, value)])
    assert (refused.value.status, refused.value.param) == (400, name)
    assert len(refused.value.detail) < 200


@given(st.sampled_from([*PARAMETERS]), st.text())
def test_any_text_is_a_value_or_a_problem(name, text):
    with contextlib.suppress(Problem):
        parameters.read(name, text)


def test_an_unknown_name_is_refused_and_the_known_ones_are_told():
    with pytest.raises(
        Problem, match=r"'width'.*there are: format, quality, w"
    ) as refused:
        order([("width", "3")])
    assert refused.value.param == "width"


def test_a_route_may_know_fewer_names():
    with pytest.raises(Problem, match="there are: w"):
        parameters.parse([("h", "3")], ("w",))


@pytest.mark.parametrize("second", ["w", "q"])
def test_one_thing_is_not_asked_for_twice(second):
    with pytest.raises(Problem, match="twice"):
        order([("w", "3"), ("quality", "5"), (second, "4")])


def test_a_recipe_travels():
    recipe = order(EVERYTHING.items()).recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe
