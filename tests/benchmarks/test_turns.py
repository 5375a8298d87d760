"""Fresh processes, turns, and what is noted of those who cannot."""

from __future__ import annotations

import json

import pytest

import cases
from harness import node, suite
from harness.figures import Case, Metric
from harness.turns import Order, alone, take_turns, understand

CASE = Case(
    name="trip",
    title="An empty call",
    module="cases.round_trip",
    metrics=(Metric("p50", "median"),),
    contenders=("offloop", "inline"),
    floors=("unix_socket",),
    seconds=0.01,
)


@pytest.mark.slow
def test_contenders_take_turns_in_fresh_processes():
    found = suite.run_case(CASE, allowed=0, quick=False)
    assert [*found] == ["offloop", "inline", "unix_socket"]
    assert [len(reports) for reports in found.values()] == [1, 1, 1]
    assert found["offloop"][0]["p50"] > found["inline"][0]["p50"] > 0


@pytest.mark.slow
def test_there_are_as_many_rounds_as_fit(monkeypatch):
    monkeypatch.setattr(suite, "MAX_ROUNDS", 2)
    case = CASE._replace(contenders=("inline",), floors=())
    assert len(suite.run_case(case, allowed=60, quick=False)["inline"]) == 2


def test_the_quick_form_says_whom_it_leaves_out():
    orders, found = suite.invite(
        CASE._replace(contenders=("inline", "ray")), True, None
    )
    assert [*orders] == ["inline", "ray", "unix_socket"]
    assert found["ray"] == [{"cannot": "left out of the quick form"}]
    assert orders["inline"].arguments["seconds"] < CASE.seconds


def test_some_contenders_only():
    orders, _ = suite.invite(CASE, False, ["inline"])
    assert [*orders] == ["inline", "unix_socket"]


@pytest.mark.slow
def test_who_cannot_is_asked_once_and_says_why():
    order = Order("cases.mapping", "asyncio.to_thread", {"seconds": 0.01})
    assert take_turns({"threads": order}, 3, 30) == {
        "threads": [{"cannot": "has no map"}]
    }


@pytest.mark.slow
def test_who_takes_too_long_is_ended_with_its_processes():
    order = Order("limits.unix_socket", "x", {"case": "round-trip", "seconds": 60})
    assert alone(order, 0.5) == {"cannot": "took more than 0.5 s"}


@pytest.mark.slow
def test_a_crash_leaves_its_last_words():
    found = alone(Order("cases.round_trip", "inline", {"hours": 1}), 30)
    assert "hours" in found["cannot"]


def test_the_figures_may_stand_among_other_lines():
    assert understand('noise\n{"p50": 1}\nnoise', "", 0) == {"p50": 1}
    assert understand("noise", "", -9) == {"cannot": "exit code -9"}


def test_a_program_for_node_says_what_it_needs(monkeypatch, tmp_path):
    order = Order("cases.round_trip", "piscina (Node)", {}, "piscina.mjs")
    monkeypatch.setattr(node.shutil, "which", lambda _: None)
    assert alone(order, 1) == {"cannot": "needs Node, which is not installed"}
    monkeypatch.setattr(node.shutil, "which", lambda _: "/bin/node")
    monkeypatch.setattr(node, "FOLDER", tmp_path)
    assert "npm install" in alone(order, 1)["cannot"]


def test_every_case_is_there_once_and_can_be_ordered():
    everything = cases.everything()
    assert len(everything) >= 20
    for name, case in everything.items():
        assert case.name == name
        orders, _ = suite.invite(case, quick=False, names=None)
        for order in orders.values():
            json.dumps(order)
