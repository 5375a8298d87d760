"""ETags: what an answer would be, known before any work is done for it.

The same bytes, the same recipe and the same versions of the encoders give the same
file, so their digest stands for the file.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

import offloop

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["etag", "matches"]


def etag(source: bytes, what: object, versions: Mapping[str, str]) -> str:
    """Return the entity tag of an answer, quotes included.

    Args:
        source: digest of the bytes that came in, or the name of a sample.
        what: everything else that decides what the answer is; its `repr` counts.
        versions: of what makes it.
    """
    parts = (source, repr(what), offloop.__version__, sorted(versions.items()))
    return f'"{blake2b(repr(parts).encode(), digest_size=16).hexdigest()}"'


def matches(if_none_match: str | None, tag: str) -> bool:
    """Tell whether the client has the answer already.

    Args:
        if_none_match: the header, None when there is none.
        tag: what the answer's tag would be.
    """
    if not if_none_match:
        return False
    given = [one.strip().removeprefix("W/") for one in if_none_match.split(",")]
    return tag in given or "*" in given
