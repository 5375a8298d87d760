"""Medians, ratios, and how figures are written."""

from __future__ import annotations

import pytest

from harness.figures import Metric, middle, percentile, ratio, readable

TIME = Metric("took", "time")
RATE = Metric("rate", "calls", "/s")


def test_the_ratio_is_the_median_of_the_ratios_of_each_round():
    ours = [{"took": 1.0}, {"took": 10.0}, {"took": 1.0}]
    theirs = [{"took": 2.0}, {"took": 30.0}, {"took": 9.0}]
    assert ratio(TIME, ours, theirs) == 3.0  # of 2, 3 and 9; of the medians: 9


def test_more_is_better_for_rates_and_less_for_times():
    assert ratio(RATE, [{"rate": 100.0}], [{"rate": 50.0}]) == 2.0
    assert ratio(TIME, [{"took": 100.0}], [{"took": 50.0}]) == 0.5
    assert Metric("memory", "", "B").less_is_better
    assert not Metric("share", "", "share").less_is_better


def test_who_took_part_once_is_compared_with_the_first_round():
    assert ratio(TIME, [{"took": 1.0}, {"took": 50.0}], [{"took": 2.0}]) == 2.0


@pytest.mark.parametrize("theirs", [{}, {"took": "runs on"}, {"took": 0.0}])
def test_there_is_no_ratio_to_what_is_no_figure(theirs):
    assert ratio(TIME, [{"took": 1.0}], [theirs]) is None


def test_the_middle_of_reports():
    assert middle([{"took": 3.0}, {"took": 1.0}, {"took": 2.0}], "took") == 2.0
    assert middle([{"took": 3.0}, {"took": "runs on"}], "took") == "runs on"
    assert middle([{"other": 3.0}], "took") is None


@pytest.mark.parametrize(("percent", "value"), [(0, 1), (50, 51), (99, 100)])
def test_percentiles(percent, value):
    assert percentile([*range(100, 0, -1)], percent) == value


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (2.5, "s", "2.5 s"),
        (0.0123, "s", "12 ms"),
        (0.000157, "s", "157 µs"),
        (4.2e-07, "s", "0.42 µs"),
        (202_345.0, "/s", "202,000/s"),
        (14.4, "/s", "14/s"),
        (3.4 * 2**20, "B", "3.4 MB"),
        (0.951, "share", "95%"),
        ("runs on", "s", "runs on"),
        (None, "s", "-"),
    ],
)
def test_figures_are_readable(value, unit, text):
    assert readable(value, unit) == text
