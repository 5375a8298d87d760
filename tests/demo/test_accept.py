"""Which format a client gets that leaves the choice to the server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.demo.accept import choose, is_acceptable, negotiate
from offloop.demo.recipe import ANIMATED, FORMATS

WRITES = ("jpeg", "png", "webp", "avif", "gif", "tiff")

CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
    "image/apng,*/*;q=0.8"
)


def chosen(header, source="jpeg", *, alpha=False, animated=False):
    accepted = negotiate(header, WRITES)
    return choose(accepted, source, alpha=alpha, animated=animated)


@pytest.mark.parametrize(
    ("header", "source", "format"),
    [
        (None, "jpeg", "jpeg"),
        ("", "png", "png"),
        ("*/*", "webp", "webp"),  # the source's own: it was sent by who takes it
        ("*/*", None, "jpeg"),
        ("image/*", "png", "png"),
        (CHROME, "jpeg", "avif"),
        ("image/webp,*/*", "jpeg", "webp"),
        ("image/avif;q=0.5,image/webp", "jpeg", "webp"),
        ("IMAGE/WebP ; Q=1.0", "jpeg", "webp"),
        ("image/webp;q=0, */*", "jpeg", "jpeg"),
        ("image/webp;q=0, */*", "webp", "jpeg"),
        ("image/jpeg;q=0, image/png", "jpeg", "png"),
        ("image/jpeg;q=0, */*", "jpeg", "png"),
        ("image/tiff", "jpeg", "tiff"),
        ("image/webp;q=nonsense, image/png", "jpeg", "png"),
        ("image/jxl, image/jpeg", "png", "jpeg"),  # not written here
        (",,;q=1,image/gif", "jpeg", "gif"),
    ],
)
def test_what_the_header_says_counts(header, source, format):
    assert chosen(header, source) == format


def test_transparent_images_get_a_format_that_can_hold_it():
    assert chosen("*/*", None, alpha=True) == "png"
    assert chosen("*/*", "jpeg", alpha=True) == "png"
    assert chosen("image/webp", "png", alpha=True) == "webp"
    assert chosen("image/jpeg", "png", alpha=True) == "jpeg"  # then without it


def test_animations_get_a_format_that_moves():
    assert chosen(CHROME, "gif", animated=True) == "webp"
    assert chosen("*/*", "gif", animated=True) == "gif"
    assert chosen("image/avif", "gif", animated=True) == "avif"


def test_without_a_header_s_result_everything_is_allowed():
    assert choose(None, "tiff", alpha=False, animated=False) == "tiff"


@pytest.mark.parametrize("header", ["text/html", "image/webp;q=0", "image/heic"])
def test_nothing_may_be_left(header):
    accepted = negotiate(header, WRITES)
    assert accepted == ((), ())


def test_a_format_may_be_asked_about():
    assert is_acceptable(None, "webp")
    assert is_acceptable("*/*", "webp")
    assert not is_acceptable("image/png", "webp")
    assert not is_acceptable("*/*, image/webp;q=0", "webp")


RANGES = st.sampled_from([*FORMATS.values(), "image/*", "*/*", "text/html"])
PARTS = st.tuples(RANGES, st.sampled_from(["", ";q=0", ";q=0.5", ";q=1"]))


@given(st.lists(PARTS.map("".join)).map(",".join), st.sampled_from([None, *WRITES]))
def test_what_is_chosen_is_always_acceptable(header, source):
    accepted = negotiate(header, WRITES)
    if accepted.named or accepted.others:
        for alpha, animated in [(False, False), (True, False), (False, True)]:
            format = choose(accepted, source, alpha=alpha, animated=animated)
            assert is_acceptable(header, format)
            holding = [name for name in ANIMATED if is_acceptable(header, name)]
            if animated and any(name in WRITES for name in holding):
                assert format in ANIMATED


@given(st.text())
def test_no_header_is_an_error(header):
    negotiate(header, WRITES)
