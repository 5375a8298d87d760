"""Pipelines: a list of operations becomes a recipe with steps, or a problem."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.demo.pipeline import MAX_OPERATIONS, read_operations, with_steps
from offloop.demo.problems import Problem
from offloop.demo.recipe import Recipe


def recipe(*operations, **beside):
    return with_steps(read_operations(json.dumps(operations)), beside)


def test_operations_become_steps():
    made = recipe(
        {"op": "crop", "crop": "1,2,30,40"},
        {"op": "resize", "w": 20, "h": 20, "fit": "cover", "crop": "north"},
        {"op": "flip"},
        {"op": "blur", "blur": 1.5},
        {"op": "encode", "format": "webp", "lossless": True},
    )
    assert made.before == (
        Recipe(crop=(1, 2, 30, 40)),
        Recipe(width=20, height=20, fit="cover", gravity="north"),
        Recipe(flip=True),
        Recipe(blur=1.5),
    )
    assert (made.format, made.lossless) == ("webp", True)
    assert made.steps == (*made.before, made)


def test_what_concerns_the_file_may_stand_beside():
    made = recipe({"op": "rotate", "rotate": 90}, format="png", icc="keep")
    assert (made.format, made.before[0].icc) == ("png", "keep")


def test_nothing_is_asked_for_in_both_places():
    with pytest.raises(Problem, match="format is given twice"):
        recipe({"op": "encode", "format": "png"}, format="webp")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "not JSON"),
        ("[" * 5000, "not JSON"),
        ("{}", "a list of 1 to 10"),
        ("[]", "a list of 1 to 10"),
        (json.dumps([{"op": "flip"}] * (MAX_OPERATIONS + 1)), "a list of 1 to 10"),
        ('["flip"]', "number 1 needs an op"),
        ('[{"op": "flip"}, {"op": "eat"}]', "number 2 needs an op"),
        ('[{"op": ["flip"]}]', "number 1 needs an op"),
        ('[{"op": "resize", "w": 0}]', "number 1, resize: w must be"),
        ('[{"op": "resize", "format": "png"}]', "Unknown parameter 'format'"),
        ('[{"op": "resize", "crop": "north"}]', "add fit=cover"),
        ('[{"op": "encode"}, {"op": "flip"}]', "only be the last"),
    ],
)
def test_what_is_wrong_is_said(text, said):
    with pytest.raises(Problem, match=said) as refused:
        read_operations(text)
    assert (refused.value.status, refused.value.param) == (400, "ops")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_any_json_is_a_pipeline_or_a_problem(value):
    with contextlib.suppress(Problem):
        read_operations(json.dumps(value))
