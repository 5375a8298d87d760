"""What a client may ask for: the table of parameters, and the recipe that they make.

Strings go in, a checked `Recipe` comes out; nothing is guessed or ignored, so that a
misspelt word is an answer and not a wrong image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from offloop.demo.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["FITS", "FORMATS", "MAX_SIDE", "Recipe", "parse"]

#: output formats, and the media type of each
FORMATS = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
    "gif": "image/gif",
    "tiff": "image/tiff",
}

FITS = ("inside", "outside", "contain", "cover", "fill")

#: the largest width or height that can be asked for
MAX_SIDE = 8192

_SWITCH = {"1": True, "true": True, "0": False, "false": False}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to make of an image.

    Attributes:
        format: a name of `FORMATS`; None: as the source, or PNG if that is not one.
        quality: from 1 to 100; None: the format's default. Lossless formats ignore it.
        width, height: wanted size; None: follows from the other, or from the source.
        fit: how the image is fitted into width and height, in the words of CSS:
            "inside" shrinks it until it fits and never enlarges it; "outside" scales it
            until it covers them; "contain" pads it, "cover" crops it, and "fill"
            distorts it to exactly that size.
        strip: drop EXIF data. (Comments, XMP and colour profiles always go.)
    """

    format: str | None = None
    quality: int | None = None
    width: int | None = None
    height: int | None = None
    fit: str = "inside"
    strip: bool = True


def _choice(words: Iterable[str]) -> Callable[[str], str]:
    allowed = tuple(words)

    def read(value: str) -> str:
        if value.lower() not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value.lower()

    return read


def _whole(most: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        # Not int() alone: it also takes "1_0", " 7 " and Arabic digits.
        if not (value.isascii() and value.isdigit() and len(value) <= 6):
            raise ValueError(f"must be a whole number from 1 to {most}")
        if not 1 <= int(value) <= most:
            raise ValueError(f"must be from 1 to {most}")
        return int(value)

    return read


def _switch(value: str) -> bool:
    if value.lower() not in _SWITCH:
        raise ValueError("must be 0 or 1")
    return _SWITCH[value.lower()]


def _format(value: str) -> str:
    word = value.lower()
    return _choice(FORMATS)({"jpg": "jpeg", "tif": "tiff"}.get(word, word))


#: each parameter: the field of the recipe, and what reads its value
_PARAMETERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "format": ("format", _format),
    "f": ("format", _format),
    "quality": ("quality", _whole(100)),
    "q": ("quality", _whole(100)),
    "w": ("width", _whole(MAX_SIDE)),
    "h": ("height", _whole(MAX_SIDE)),
    "fit": ("fit", _choice(FITS)),
    "strip": ("strip", _switch),
}


def parse(pairs: Iterable[tuple[str, str]]) -> Recipe:
    """Return the recipe that parameters of a query or a form ask for.

    An empty value counts as not given: that is what a form sends for an empty field.

    Raises:
        Problem: 400, for an unknown name, a bad value, or one thing asked for twice.
    """
    fields: dict[str, object] = {}
    for name, value in pairs:
        if name not in _PARAMETERS:
            known = ", ".join(_PARAMETERS)
            raise Problem(400, f"Unknown parameter {name!r}; there are: {known}.", name)
        if not value:
            continue
        field, read = _PARAMETERS[name]
        if field in fields:
            raise Problem(400, f"The parameter {name!r} is given twice.", name)
        try:
            fields[field] = read(value)
        except ValueError as error:
            raise Problem(400, f"{name} {error}, not {value[:40]!r}.", name) from None
    return Recipe(**fields)  # type: ignore[arg-type]  # the table pairs field and reader
