"""A context variable is known by its place, also to code that travels by value."""

from __future__ import annotations

import sys
from contextvars import Context, ContextVar
from types import ModuleType

import pytest

import jobs_context
from offloop import context
from offloop.context import JobContext
from offloop.wire import by_value, carried, variables

placed: ContextVar[int] = ContextVar("placed")


def rebuilt(variable):
    make, args = variables.reduce(variable)
    return make(*args)


def test_what_is_here_is_itself():
    assert rebuilt(placed) is placed
    assert rebuilt(jobs_context.request) is jobs_context.request
    assert by_value.dumps_by_value(placed)


def test_what_is_no_global_cannot_travel():
    with pytest.raises(TypeError, match="'hidden' is not a global of any module"):
        variables.reduce(jobs_context.Holder.hidden)


def test_a_module_is_imported_for_code_that_refers_to_it(monkeypatch):
    make, args = variables.reduce(jobs_context.untouched)
    monkeypatch.delitem(sys.modules, "jobs_context")
    assert make(*args).name == "untouched"
    assert "jobs_context" in sys.modules


@pytest.mark.parametrize("default", [(), ("none",)])
def test_a_variable_of_a_script_is_made_once_with_its_default(default):
    place = (("__main__", f"made{len(default)}"),)
    made = variables._restore("made", place, default)
    assert variables._restore("made", place, default) is made
    assert variables.find(place) is made
    asked = () if default else ("asked",)
    assert Context().run(made.get, *asked) == (default or asked)[0]


def test_modules_that_come_later_and_those_that_are_no_modules_are_looked_at(
    monkeypatch,
):
    late = ModuleType("late_module")
    late.variable = ContextVar("late")
    monkeypatch.setitem(sys.modules, "no_module", object())
    monkeypatch.setitem(sys.modules, "late_module", late)
    assert variables.places_of(late.variable) == (("late_module", "variable"),)


def test_what_describes_this_process_stays_here():
    def see():
        context.enter(JobContext(1, 1, None, 0))
        return carried.capture()

    assert Context().run(see) is None
