"""Figures fit their columns and keep what matters of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.top import words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 µs"),
        (1.24e-5, "12 µs"),
        (0.0009996, "1.0 ms"),
        (0.0034, "3.4 ms"),
        (0.34, "340 ms"),
        (1.0, "1.0 s"),
        (9.96, "10 s"),
        (119.0, "119 s"),
        (120.0, "2 min"),
        (7200.0, "2 h"),
        (3 * 86400.0, "3 d"),
    ],
)
def test_times(seconds, text):
    assert words.span(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, ""),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (45 << 20, "45 MiB"),
        (1 << 30, "1.0 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_sizes(size, text):
    assert words.volume(size) == text


def test_numbers_and_rates():
    assert [words.count(n) for n in (0, 12345, 1_234_567, 2_000_000_000)] == [
        *("0", "12,345", "1.23 M", "2.00 G")
    ]
    assert [words.rate(r) for r in (None, 0.0, 0.25, 9.96, 12345.4)] == [
        *("", "0/s", "0.2/s", "10/s", "12,345/s")
    ]
    assert [words.percent(s) for s in (None, 0.0, 0.984)] == ["", "0%", "98%"]


def test_bars_and_charts():
    assert words.bar(None, 4) == ""
    assert words.bar(0.0, 4) == "    "
    assert words.bar(2.0, 4) == "████"
    assert words.bar(0.53125, 4) == "██▏ "
    assert words.spark([0, 1, 2, 4, 8], 4) == "▂▃▅█"
    assert words.spark([1, 1], 4, least=8) == "▂▂"
    assert words.spark([0.0], 4) == "▁"
    assert words.spark([1.0], 0) == words.spark([], 5) == ""


@given(st.text("abc…é", max_size=30), st.integers(0, 20))
def test_what_is_clipped_fits(text, width):
    clipped = words.clip(text, width)
    assert len(clipped) <= width
    if len(text) <= width:
        assert clipped == text


@given(st.floats(0, 1e8), st.floats(0, 1e12), st.integers(0, 10**13))
def test_all_of_them_are_short(seconds, speed, size):
    assert len(words.span(seconds)) <= 7
    assert len(words.rate(speed)) <= 12
    assert len(words.volume(size)) <= 8
