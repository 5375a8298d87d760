"""Signed requests: who has the key decides what the server is asked for.

The signature is an HMAC-SHA256, in URL-safe base64 without padding, of the method, the
path and the sorted query, and it is the query's last parameter. With `expires` it ends
at a time; with `digest` it is good for one image only.
"""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from offloop.demo.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Pairs = list[tuple[str, str]]

__all__ = ["NAMES", "check", "sign"]

#: parameters that are about the signature and not about the image
NAMES = ("expires", "digest", "sig")


def sign(key: str, method: str, path: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Return the value of `sig` for a request.

    Args:
        key: the secret.
        method: "GET" or "POST", for example.
        path: of the URL, such as "/encode".
        pairs: names and values of the query, in any order, without `sig`.
    """
    text = f"{method}\n{path}\n{urlencode(sorted(pairs))}"
    mark = hmac.new(key.encode(), text.encode(), "sha256").digest()
    return base64.urlsafe_b64encode(mark).rstrip(b"=").decode()


def check(
    keys: Sequence[str], method: str, path: str, pairs: Pairs, now: float
) -> None:
    """Check the signature of a request.

    Args:
        keys: secrets, any of which will do: so they can be changed one by one.
        method, path: of the request.
        pairs: its whole query.
        now: seconds since 1970.

    Raises:
        Problem: 401 without a signature, 403 with a wrong one, 410 with an old one.
    """
    given = [value for name, value in pairs if name == "sig"]
    if len(given) != 1:
        raise Problem(
            401,
            "This server takes signed requests only; the parameter sig is missing.",
            "sig",
            {"WWW-Authenticate": "Signature"},
        )
    signed = [pair for pair in pairs if pair[0] != "sig"]
    marks = [sign(key, method, path, signed) for key in keys]
    # Bytes, and all keys each time: the time that it takes tells nothing.
    good = [hmac.compare_digest(mark.encode(), given[0].encode()) for mark in marks]
    if not any(good):
        raise Problem(403, "The signature does not fit the request.", "sig")
    for name, value in signed:
        if name == "expires" and not (value.isdecimal() and int(value[:15]) >= now):
            raise Problem(410, "The signature has expired.", "expires")
