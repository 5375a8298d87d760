"""ETags: equal for what gives equal answers, and matched as RFC 9110 says."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from offloop.demo.recipe import Recipe
from offloop.demo.validators import etag, matches

VERSIONS = {"Pillow": "1", "libwebp": "2"}


def test_the_same_work_has_the_same_tag():
    tag = etag(b"digest", Recipe(width=3), VERSIONS)
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag)
    other_order = dict(reversed(VERSIONS.items()))
    assert etag(b"digest", Recipe(width=3), other_order) == tag


def test_whatever_changes_the_answer_changes_the_tag():
    tags = {
        etag(b"digest", Recipe(width=3), VERSIONS),
        etag(b"other", Recipe(width=3), VERSIONS),
        etag(b"digest", Recipe(width=4), VERSIONS),
        etag(b"digest", replace(Recipe(width=3), accepted=((), ("png",))), VERSIONS),
        etag(b"digest", Recipe(width=3), {**VERSIONS, "libwebp": "3"}),
    }
    assert len(tags) == 5


@pytest.mark.parametrize(
    ("header", "same"),
    [
        (None, False),
        ("", False),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", "a"', True),
        ("*", True),
        ('"b"', False),
        ("a", False),
    ],
)
def test_a_client_names_what_it_has(header, same):
    assert matches(header, '"a"') == same
