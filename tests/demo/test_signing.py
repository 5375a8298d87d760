"""Signatures: who has the key is let in, for as long and as far as it says."""

from __future__ import annotations

import pytest

from offloop.demo.problems import Problem
from offloop.demo.signing import check, sign

QUERY = [("w", "800"), ("f", "webp")]


def status(pairs, *, keys=("secret",), method="POST", path="/encode", now=1000.0):
    try:
        check(keys, method, path, pairs, now)
    except Problem as problem:
        return problem.status
    return 200


def signed(pairs, key="secret"):
    return [*pairs, ("sig", sign(key, "POST", "/encode", pairs))]


def test_a_signature_is_the_same_everywhere():
    mark = sign("secret", "POST", "/encode", QUERY)
    assert mark == "ipawc5ASJ9ChB97sF7gGP9UOJK29qf-CuDmeenwcoHE"


def test_a_signed_request_is_let_in_in_any_order():
    assert status(signed(QUERY)) == 200
    assert status(signed(QUERY)[::-1]) == 200


def test_any_of_several_keys_will_do():
    assert status(signed(QUERY, "old"), keys=("new", "old")) == 200
    assert status(signed(QUERY, "older"), keys=("new", "old")) == 403


@pytest.mark.parametrize(
    "changed",
    [
        {"pairs": [("w", "8000"), *signed(QUERY)[1:]]},
        {"pairs": [*signed(QUERY), ("q", "100")]},
        {"method": "PUT"},
        {"path": "/thumbnail"},
        {"pairs": [*QUERY, ("sig", "ä")]},
        {"pairs": [*QUERY, ("sig", "")]},
    ],
)
def test_whatever_is_changed_does_not_fit(changed):
    assert status(**{"pairs": signed(QUERY), **changed}) == 403


def test_without_a_signature_nobody_is_let_in():
    with pytest.raises(Problem) as refused:
        check(("secret",), "POST", "/encode", QUERY, 0)
    assert refused.value.status == 401
    assert refused.value.headers["WWW-Authenticate"]
    assert status([*signed(QUERY), ("sig", "another")]) == 401


@pytest.mark.parametrize(
    ("expires", "answer"), [("1000", 200), ("999", 410), ("soon", 410), ("-1", 410)]
)
def test_a_signature_ends_at_a_time(expires, answer):
    assert status(signed([*QUERY, ("expires", expires)])) == answer
