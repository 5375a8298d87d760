"""What a client may ask for: one table of parameters, from which all else is made.

Strings go in, a checked `Order` comes out; nothing is guessed or ignored, so that a
misspelt word is an answer and not a wrong image. The server's OpenAPI document is made
from the same table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from offloop.demo.problems import Problem
from offloop.demo.recipe import FITS, FORMATS, GRAVITIES, MAX_SIDE, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Pairs = Iterable[tuple[str, str]]

__all__ = [
    "PARAMETERS",
    "PRIORITIES",
    "SHORT",
    "Order",
    "Parameter",
    "order",
    "parse",
    "read",
]

#: words for a job's priority, and what the pool calls it
PRIORITIES = {"high": 10, "normal": 0, "low": -10}

MAX_FRAMES = 100
MAX_TIMEOUT = 30.0


class Parameter(NamedTuple):
    """One thing that can be asked for.

    Attributes:
        field: of the `Recipe` or the `Order`.
        read: makes the value of its text, or raises ValueError with what it must be.
        schema: what OpenAPI says of the text.
        help: one phrase for people.
    """

    field: str
    read: Callable[[str], object]
    schema: dict[str, Any]
    help: str


@dataclass(frozen=True, slots=True)
class Order:
    """What a request asks for: a recipe, and how to treat the job.

    Attributes:
        recipe: what to make.
        priority: of the job, higher first.
        timeout: seconds that it may take; None: as long as the server allows.
        engine: where to run it: "pool"; or "thread" or "inline", to see the difference.
    """

    recipe: Recipe
    priority: int = 0
    timeout: float | None = None
    engine: str = "pool"


# As JSON has it: programs also write 0.30000000000000004 and 1e-05.
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?|\.[0-9]{1,20}")

_SWITCH = {"1": True, "true": True, "0": False, "false": False}


def _choice(words: Iterable[str], **synonyms: str) -> tuple[Any, dict[str, Any]]:
    allowed = tuple(words)

    def read(value: str) -> str:
        word = synonyms.get(value.lower(), value.lower())
        if word not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return word

    return read, {"type": "string", "enum": [*allowed, *synonyms]}


def _whole(least: int, most: int) -> tuple[Any, dict[str, Any]]:
    def read(value: str) -> int:
        # Not int() alone: it also takes "1_0", " 7 " and Arabic digits.
        if not (value.isascii() and value.isdigit() and len(value) <= 9):
            raise ValueError(f"must be a whole number from {least} to {most}")
        if not least <= int(value) <= most:
            raise ValueError(f"must be from {least} to {most}")
        return int(value)

    return read, {"type": "integer", "minimum": least, "maximum": most}


def _number(least: float, most: float) -> tuple[Any, dict[str, Any]]:
    def read(value: str) -> float:
        if not (_NUMBER.fullmatch(value) and least <= float(value) <= most):
            raise ValueError(f"must be a number from {least:g} to {most:g}")
        return float(value)

    return read, {"type": "number", "minimum": least, "maximum": most}


def _switch(value: str) -> bool:
    if value.lower() not in _SWITCH:
        raise ValueError("must be 0 or 1")
    return _SWITCH[value.lower()]


def _format(value: str) -> str | None:
    words = ("auto", *FORMATS)
    word: str = _choice(words, jpg="jpeg", tif="tiff")[0](value)
    return None if word == "auto" else word


def _quality(value: str) -> int | None:
    if value.lower() == "auto":
        return None
    quality: int = _whole(1, 100)[0](value)
    return quality


def _crop(value: str) -> tuple[int, int, int, int] | str:
    if value.lower() in (*GRAVITIES, "attention"):
        return value.lower()
    corner, side = _whole(0, 100_000)[0], _whole(1, 100_000)[0]
    try:
        left, top, width, height = value.split(",")
        return (corner(left), corner(top), side(width), side(height))
    except ValueError:
        words = ", ".join((*GRAVITIES, "attention"))
        raise ValueError(f"must be x,y,width,height or one of {words}") from None


def _colour(value: str) -> tuple[int, int, int]:
    digits = value.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(2 * digit for digit in digits)
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        raise ValueError("must be a colour such as ffffff or 08f") from None
    return (red, green, blue)


_FORMATS_SCHEMA = {"type": "string", "enum": ["auto", *FORMATS, "jpg", "tif"]}
_SIDE = _whole(1, MAX_SIDE)
_BIT = (_switch, {"type": "string", "enum": list(_SWITCH)})

#: every parameter by its name
PARAMETERS = {
    "format": Parameter(
        "format", _format, _FORMATS_SCHEMA, "file format of the result"
    ),
    "quality": Parameter(
        "quality",
        _quality,
        {"anyOf": [_whole(1, 100)[1], {"type": "string", "enum": ["auto"]}]},
        "quality of lossy formats",
    ),
    "w": Parameter("width", *_SIDE, "width in pixels"),
    "h": Parameter("height", *_SIDE, "height in pixels"),
    "fit": Parameter("fit", *_choice(FITS), "how it is fitted into width and height"),
    "enlarge": Parameter("enlarge", *_BIT, "let inside, outside and contain enlarge"),
    "dpr": Parameter("dpr", *_number(1, 4), "device pixels: multiplies w and h"),
    "crop": Parameter(
        "crop",
        _crop,
        {"type": "string", "pattern": r"^([a-zA-Z]+|\d+,\d+,\d+,\d+)$"},
        "the part to use, or what fit=cover keeps in view",
    ),
    "rotate": Parameter(
        "rotate",
        lambda value: int(_choice(["0", "90", "180", "270"])[0](value)),
        {"type": "integer", "enum": [0, 90, 180, 270]},
        "degrees clockwise",
    ),
    "flip": Parameter("flip", *_BIT, "exchange top and bottom"),
    "flop": Parameter("flop", *_BIT, "exchange left and right"),
    "grayscale": Parameter("grayscale", *_BIT, "drop the colours"),
    "blur": Parameter("blur", *_number(0, 50), "radius in pixels of the result"),
    "sharpen": Parameter("sharpen", *_number(0, 10), "strength; 1 is usual"),
    "background": Parameter(
        "background",
        _colour,
        {"type": "string", "pattern": "^#?([0-9a-fA-F]{3}){1,2}$"},
        "colour behind transparent parts and padding",
    ),
    "strip": Parameter("strip", *_BIT, "drop EXIF data, but for the copyright"),
    "icc": Parameter("icc", *_choice(["srgb", "keep"]), "colours: convert or keep"),
    "progressive": Parameter("progressive", *_BIT, "JPEG that gets sharper"),
    "lossless": Parameter("lossless", *_BIT, "keep every pixel"),
    "speed": Parameter("speed", *_whole(0, 10), "AVIF: 0 small, 10 quick"),
    "method": Parameter("method", *_whole(0, 6), "WebP: 0 quick, 6 small"),
    "subsampling": Parameter(
        "subsampling",
        *_choice(["4:4:4", "4:2:2", "4:2:0"]),
        "resolution of colours in JPEG and AVIF",
    ),
    "max_bytes": Parameter(
        "max_bytes",
        *_whole(100, 100_000_000),
        "lower the quality until the file fits",
    ),
    "frames": Parameter("frames", *_whole(1, MAX_FRAMES), "frames to keep"),
    "measure": Parameter("measure", *_BIT, "compare the result: PSNR and SSIM"),
    "priority": Parameter("priority", *_choice(PRIORITIES), "which job goes first"),
    "timeout": Parameter(
        "timeout", *_number(0.1, MAX_TIMEOUT), "seconds that it may take"
    ),
    "engine": Parameter(
        "engine",
        *_choice(["pool", "thread", "inline"]),
        "where to run it, on a server that shows the difference",
    ),
}

#: other names of some
SHORT = {"f": "format", "q": "quality"}

_OF_THE_ORDER = ("priority", "timeout", "engine")


def parse(pairs: Pairs, names: Iterable[str] = PARAMETERS) -> dict[str, object]:
    """Return the fields that parameters of a query or a form ask for.

    An empty value counts as not given: that is what a form sends for an empty field.

    Args:
        pairs: names and values.
        names: parameters that are known here.

    Raises:
        Problem: 400, for an unknown name, a bad value, or one thing asked for twice.
    """
    known = [*names]
    fields: dict[str, object] = {}
    for name, value in pairs:
        full = SHORT.get(name, name)
        if full not in known:
            there = ", ".join(known)
            raise Problem(
                400, f"Unknown parameter {name[:40]!r}; there are: {there}.", name[:40]
            )
        if not value:
            continue
        field = PARAMETERS[full].field
        if field in fields:
            raise Problem(400, f"The parameter {name!r} is given twice.", name)
        fields[field] = read(full, value, name)
    return fields


def read(parameter: str, value: str, name: str | None = None) -> object:
    """Return the value of one parameter.

    Args:
        parameter: its full name.
        value: its text.
        name: how the client calls it; None: by its full name.

    Raises:
        Problem: 400, for a bad value.
    """
    name = name or parameter
    try:
        return PARAMETERS[parameter].read(value)
    except ValueError as error:
        raise Problem(400, f"{name} {error}, not {value[:40]!r}.", name) from None


def order(fields: Mapping[str, Any]) -> Order:
    """Return the order that the fields make; see `parse`.

    Raises:
        Problem: 400 when two of them do not go together.
    """
    given = dict(fields)
    mine = {name: given.pop(name) for name in _OF_THE_ORDER if name in given}
    if "priority" in mine:
        mine["priority"] = PRIORITIES[mine["priority"]]
    return Order(recipe(given), **mine)


def recipe(fields: Mapping[str, Any]) -> Recipe:
    """Return the recipe that the fields make.

    Raises:
        Problem: 400 when two of them do not go together.
    """
    given = dict(fields)
    if isinstance(given.get("crop"), str):
        given["gravity"] = given.pop("crop")
        if given.get("fit") != "cover":
            raise Problem(
                400,
                f"crop={given['gravity']} says what fit=cover keeps in view; "
                "add fit=cover, w and h.",
                "crop",
            )
    ratio = given.pop("dpr", 1.0)
    for side in ("width", "height"):
        if side in given:
            given[side] = round(given[side] * ratio)
    return Recipe(**given)
