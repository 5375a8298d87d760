"""Which format an answer gets when the client leaves the choice to the server.

Two steps, for the server that reads the Accept header never looks into an image, and
the worker that knows the image never sees a header:

    negotiate(header, writable) ─▶ formats that will do ═▶ choose(formats, the image)

A wildcard means "whatever you like": many programs send one and cannot show AVIF, so
the young formats are used only for clients that name them (or that sent one).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from offloop.demo.recipe import ANIMATED, FORMATS

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Accepted", "choose", "is_acceptable", "negotiate"]

#: used only for clients that name them; smaller files first
_YOUNG = ("jxl", "avif", "webp")

#: understood everywhere, and so what a wildcard stands for
_OLD = ("jpeg", "png", "gif")

_ALPHA = ("png", "webp", "avif", "gif", "jxl", "tiff", "jp2", "qoi", "heic")

# Beyond this a header is no list of media types but an attempt.
_MAX_RANGES = 50


class Accepted(NamedTuple):
    """Formats that a client takes.

    Attributes:
        named: young ones that it named, the preferred one first.
        others: the rest, in the order of `FORMATS`.
    """

    named: tuple[str, ...]
    others: tuple[str, ...]


def negotiate(header: str | None, writable: Collection[str]) -> Accepted:
    """Return the formats that the client takes.

    Args:
        header: the Accept header; None: there is none, which means anything.
        writable: formats that the server can write.
    """
    weights = _weights(header)
    named = [
        name
        for name in _YOUNG
        if name in writable and weights.get(FORMATS[name], 0.0) > 0
    ]
    named.sort(key=lambda name: -weights[FORMATS[name]])
    others = [
        name
        for name in FORMATS
        if name in writable and name not in named and _weight(weights, name) > 0
    ]
    return Accepted(tuple(named), tuple(others))


def is_acceptable(header: str | None, format: str) -> bool:
    """Tell whether the client takes a format, named or by a wildcard."""
    return _weight(_weights(header), format) > 0


def choose(
    accepted: Accepted | None, source: str | None, *, alpha: bool, animated: bool
) -> str:
    """Return the format for one image.

    Args:
        accepted: what `negotiate` returned; None: anything, as for a wildcard.
        source: format of the image that came in, None when it cannot be written.
        alpha: the image has transparent parts.
        animated: it has frames that are to be kept.
    """
    named, others = accepted or Accepted((), tuple(FORMATS))

    def holds(name: str) -> bool:
        return (name in _ALPHA or not alpha) and (name in ANIMATED or not animated)

    if animated and "webp" in named:
        return "webp"  # in AVIF an animation would take minutes
    wishes = [*named, *([source] if source in others else []), *_OLD, *others]
    taken = [name for name in wishes if name in named or name in others]
    return next(filter(holds, taken), taken[0])


def _weights(header: str | None) -> dict[str, float]:
    """Return the quality value of each media range in an Accept header."""
    weights = {}
    for part in (header or "*/*").split(",")[:_MAX_RANGES]:
        media, *parameters = part.lower().split(";")
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.strip().partition("=")
            if name == "q":
                weight = _quality(value)
        if media.strip():
            weights[media.strip()] = weight
    return weights


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def _weight(weights: dict[str, float], format: str) -> float:
    """Return the weight by the most precise range that covers a format."""
    for media in (FORMATS[format], "image/*", "*/*"):
        if media in weights:
            return weights[media]
    return 0.0
