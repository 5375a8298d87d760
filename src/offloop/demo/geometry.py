"""Where the pixels of an image go: the arithmetic of turns and of `fit`, nothing else.

fit      scale               result
inside   min, at most 1      the scaled image
outside  max, at most 1      the scaled image
contain  min, at most 1      width x height, padded
cover    max                 width x height, cropped
fill     each side its own   width x height

"At most 1" unless the recipe says `enlarge`.

An orientation is the number from 1 to 8 that EXIF uses. Each says where a pixel of the
upright image lies in the file: perhaps with x and y exchanged, and then perhaps
mirrored along each axis. Two of them make a third.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from offloop.demo.problems import Problem
from offloop.demo.recipe import GRAVITIES

if TYPE_CHECKING:
    from offloop.demo.recipe import Recipe

__all__ = ["Box", "Layout", "Size", "in_file", "layout", "turned", "upright"]

Size = tuple[int, int]

#: left, top, right and bottom in pixels; the last two are just outside
Box = tuple[float, float, float, float]


class Layout(NamedTuple):
    """How an upright source becomes a result.

    Attributes:
        crop: the part of the source that is used.
        scaled: what that part is scaled to.
        canvas: the size of the result; larger than `scaled` where it is padded.
    """

    crop: Box
    scaled: Size
    canvas: Size


def layout(
    width: int, height: int, recipe: Recipe, focus: tuple[float, float] | None = None
) -> Layout:
    """Return how a source of this size becomes what the recipe asks for.

    Args:
        width, height: of the source, upright and turned.
        recipe: what is asked for.
        focus: what stays in view when it is cropped, as `recipe.GRAVITIES` has it;
            None: what the recipe says.

    Raises:
        Problem: 422 when the part to be used is not within the source.
    """
    left, top, right, bottom = _part(width, height, recipe)
    across, down = right - left, bottom - top
    if recipe.fit == "fill":
        size = (recipe.width or _side(across), recipe.height or _side(down))
        return Layout((left, top, right, bottom), size, size)
    scale = _scale(across, down, recipe)
    scaled = (_side(across * scale), _side(down * scale))
    part = (left, top, right, bottom)
    if recipe.width and recipe.height:
        wanted = (recipe.width, recipe.height)
        if recipe.fit == "contain":
            fitting = (min(scaled[0], wanted[0]), min(scaled[1], wanted[1]))
            return Layout(part, fitting, wanted)
        if recipe.fit == "cover":
            x, y = focus or GRAVITIES.get(recipe.gravity, (0.5, 0.5))
            used = (min(wanted[0] / scale, across), min(wanted[1] / scale, down))
            left, top = left + (across - used[0]) * x, top + (down - used[1]) * y
            # Rounding must not carry it beyond the edge.
            part = (left, top, min(left + used[0], right), min(top + used[1], bottom))
            return Layout(part, wanted, wanted)
    return Layout(part, scaled, scaled)


def _part(width: int, height: int, recipe: Recipe) -> Box:
    if recipe.crop is None:
        return (0.0, 0.0, float(width), float(height))
    left, top, across, down = recipe.crop
    if left + across > width or top + down > height:
        raise Problem(
            422,
            f"The part to crop ends at {left + across},{top + down}; the image at "
            f"{width},{height}.",
            "crop",
        )
    return (float(left), float(top), float(left + across), float(top + down))


def _scale(across: float, down: float, recipe: Recipe) -> float:
    scales = []
    if recipe.width:
        scales.append(recipe.width / across)
    if recipe.height:
        scales.append(recipe.height / down)
    choose = max if recipe.fit in ("outside", "cover") else min
    scale = choose(scales, default=1.0)
    if recipe.fit == "cover" or recipe.enlarge:
        return scale
    return min(scale, 1.0)


def _side(length: float) -> int:
    return max(1, round(length))


# Of each orientation: are x and y exchanged, then is x mirrored, is y mirrored?
_WAYS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
_ORIENTATIONS = {way: orientation for orientation, way in _WAYS.items()}

# What turns an image clockwise by so many degrees.
_ROTATED = {0: 1, 90: 6, 180: 3, 270: 8}


def turned(orientation: int, recipe: Recipe) -> int:
    """Return the orientation of a file whose upright image is then turned."""
    flipped = {(0, 0): 1, (1, 0): 4, (0, 1): 2, (1, 1): 3}[recipe.flip, recipe.flop]
    return _both(_both(orientation, _ROTATED[recipe.rotate]), flipped)


def _both(first: int, second: int) -> int:
    exchanged, x, y = _WAYS[first]
    also, x2, y2 = _WAYS[second]
    if exchanged:
        x2, y2 = y2, x2
    return _ORIENTATIONS[exchanged != also, x != x2, y != y2]


def upright(size: Size, orientation: int) -> Size:
    """Return the size of a file's image once it is upright, and the other way round."""
    return (size[1], size[0]) if _WAYS[orientation][0] else size


def in_file(box: Box, size: Size, orientation: int) -> Box:
    """Return where a part of the upright image lies in the file.

    Args:
        box: in pixels of the upright image.
        size: of the upright image.
        orientation: how the file lies.
    """
    exchanged, mirror_x, mirror_y = _WAYS[orientation]
    left, top, right, bottom = box
    width, height = size
    if exchanged:
        left, top, right, bottom = top, left, bottom, right
        width, height = height, width
    if mirror_x:
        left, right = width - right, width - left
    if mirror_y:
        top, bottom = height - bottom, height - top
    return (left, top, right, bottom)
