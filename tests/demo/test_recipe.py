"""Parameters: every one is read, checked, and refused when it is not understood."""

from __future__ import annotations

import pickle

import pytest

from offloop.demo.problems import Problem
from offloop.demo.recipe import FORMATS, Recipe, parse


def test_no_parameters_mean_the_defaults():
    assert parse([]) == Recipe()


def test_every_parameter_is_read():
    pairs = {
        "f": "webp",
        "q": "70",
        "w": "8192",
        "h": "1",
        "fit": "cover",
        "strip": "0",
    }
    assert parse(pairs.items()) == Recipe("webp", 70, 8192, 1, "cover", False)


@pytest.mark.parametrize("name", ["format", "f"])
@pytest.mark.parametrize("value", [*FORMATS, "jpg", "tif", "WebP"])
def test_formats_are_known_by_all_their_names(name, value):
    full = {"jpg": "jpeg", "tif": "tiff"}.get(value, value.lower())
    assert parse([(name, value)]).format == full


def test_an_empty_field_of_a_form_is_not_given():
    assert parse([("w", ""), ("format", ""), ("q", "")]) == Recipe()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("f", "bmp"),
        ("q", "0"),
        ("q", "101"),
        ("quality", "1e1"),
        ("w", "0"),
        ("w", "8193"),
        ("h", "-1"),
        ("h", "1_0"),
        ("h", "٣"),
        ("w", "1" * 5000),
        ("fit", "stretch"),
        ("strip", "maybe"),
    ],
)
def test_a_bad_value_is_refused_by_name(name, value):
    with pytest.raises(Problem) as refused:
        parse([(name, value)])
    assert (refused.value.status, refused.value.param) == (400, name)
    assert len(refused.value.detail) < 150


def test_an_unknown_name_is_refused_and_the_known_ones_are_told():
    with pytest.raises(
        Problem, match=r"'width'.*there are: format, f, quality"
    ) as refused:
        parse([("width", "3")])
    assert refused.value.param == "width"


@pytest.mark.parametrize("second", ["w", "q"])
def test_one_thing_is_not_asked_for_twice(second):
    with pytest.raises(Problem, match="twice"):
        parse([("w", "3"), ("quality", "5"), (second, "4")])


def test_a_recipe_travels():
    recipe = Recipe("avif", 3)
    assert pickle.loads(pickle.dumps(recipe)) == recipe
