"""Where the pixels of an image go: the arithmetic of `fit`, and nothing else.

fit      scale               result
inside   min, at most 1      the scaled image
outside  max                 the scaled image
contain  min                 width x height, padded
cover    max                 width x height, cropped around the middle
fill     each side its own   width x height
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from offloop.demo.recipe import Recipe

__all__ = ["Layout", "Size", "layout"]

Size = tuple[int, int]


class Layout(NamedTuple):
    """How a source becomes a result.

    Attributes:
        crop: width and height of the middle of the source that is used.
        scaled: what that part is scaled to.
        canvas: the size of the result; larger than `scaled` where it is padded.
    """

    crop: tuple[float, float]
    scaled: Size
    canvas: Size


def layout(width: int, height: int, recipe: Recipe) -> Layout:
    """Return how a source of this size becomes what the recipe asks for."""
    across = recipe.width / width if recipe.width else None
    down = recipe.height / height if recipe.height else None
    whole = (float(width), float(height))
    if recipe.fit == "fill":
        return _even(whole, (recipe.width or width, recipe.height or height))
    scale = _scale(recipe.fit, across, down)
    scaled = (_side(width * scale), _side(height * scale))
    if recipe.width and recipe.height:
        wanted = (recipe.width, recipe.height)
        if recipe.fit == "contain":
            fitting = (min(scaled[0], wanted[0]), min(scaled[1], wanted[1]))
            return Layout(whole, fitting, wanted)
        if recipe.fit == "cover":
            crop = (min(wanted[0] / scale, whole[0]), min(wanted[1] / scale, whole[1]))
            return _even(crop, wanted)
    return _even(whole, scaled)


def _scale(fit: str, across: float | None, down: float | None) -> float:
    scales = [scale for scale in (across, down) if scale is not None]
    if fit == "inside":
        return min([*scales, 1.0])
    choose = max if fit in ("outside", "cover") else min
    return choose(scales, default=1.0)


def _side(length: float) -> int:
    return max(1, round(length))


def _even(crop: tuple[float, float], size: Size) -> Layout:
    return Layout(crop, size, size)
