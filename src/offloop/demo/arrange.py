"""Pixels of a source in, pixels of a result out. Runs in workers only.

    cut and scale ─▶ colours ─▶ turn ─▶ grey, blur, sharpen ─▶ pad ─▶ background

The order is by price: every step costs by the pixel, so scaling comes first, and what
is turned or coloured is as small as it can be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageFilter

from offloop.demo.colours import flatten, in_srgb, on_paper
from offloop.demo.geometry import in_file, layout, turned, upright

if TYPE_CHECKING:
    from offloop.demo.geometry import Layout, Size
    from offloop.demo.recipe import Recipe

__all__ = ["TURNS", "arrange", "plan"]

#: how to turn an image upright, by its EXIF orientation
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# When an image is scaled by much, it is first shrunk by plain averaging to this many
# times the wanted size, and then well: a third of the time, hard to tell apart.
_GAP = 2.0

# The longest side of the copy in which `_focus` looks for detail.
_GLANCE = 96


def plan(size: Size, orientation: int, recipe: Recipe) -> Layout:
    """Return how an image with this size in its file becomes what the recipe says.

    Raises:
        Problem: 422 when the part to be used is not within it.
    """
    return layout(*upright(size, turned(orientation, recipe)), recipe)


def arrange(
    image: Image.Image, size: Size, orientation: int, icc: bytes, recipe: Recipe
) -> Image.Image:
    """Return the pixels of the result, 8 bits each, with nothing else in `info`.

    Args:
        image: of mode L, LA, RGB, RGBA or CMYK; perhaps smaller than in its file.
        size: in its file.
        orientation: how it lies in its file, from 1 to 8.
        icc: its colour profile, or b"".
        recipe: what to do with it.

    Raises:
        Problem: 422 when the part to be used is not within it.
    """
    orientation = turned(orientation, recipe)
    seen = upright(size, orientation)
    focus = None
    if recipe.gravity == "attention":
        focus = _focus(image, orientation, layout(*seen, recipe), seen)
    where = layout(*seen, recipe, focus)
    image = _scale(image, where, size, orientation)
    if recipe.icc == "srgb" or image.mode == "CMYK":
        image = in_srgb(image, icc)
    if orientation in TURNS:
        image = image.transpose(TURNS[orientation])
    image = _filtered(image, recipe)
    if image.size != where.canvas:
        image = on_paper(image, where.canvas, recipe.background)
    if recipe.background is not None:
        image = flatten(image, recipe.background)
    image.info = {}  # else encoders would write what the source's file said
    return image


def _scale(
    image: Image.Image, where: Layout, size: Size, orientation: int
) -> Image.Image:
    scaled = upright(where.scaled, orientation)
    seen = upright(size, orientation)
    left, top, right, bottom = in_file(where.crop, seen, orientation)
    if scaled == image.size and (left, top, right, bottom) == (0, 0, *size):
        return image
    # The decoder may have shrunk the image; the crop is in pixels of the file.
    x, y = image.width / size[0], image.height / size[1]
    edges = (min(right * x, image.width), min(bottom * y, image.height))
    box = (left * x, top * y, *edges)
    return image.resize(scaled, Image.Resampling.LANCZOS, box, _GAP)


def _filtered(image: Image.Image, recipe: Recipe) -> Image.Image:
    if recipe.grayscale:
        image = image.convert("LA" if image.has_transparency_data else "L")
    if recipe.blur:
        image = image.filter(ImageFilter.GaussianBlur(recipe.blur))
    if recipe.sharpen:
        percent = round(100 * recipe.sharpen)
        image = image.filter(ImageFilter.UnsharpMask(1, percent, 2))
    return image


def _focus(
    image: Image.Image, orientation: int, where: Layout, seen: Size
) -> tuple[float, float]:
    """Return where the part with the most detail lies, as shares of what is cut off.

    Detail is the strength of edges in a small grey copy. The part slides over its
    rows and columns; those at the rim of the picture count for no more than others.
    """
    small = image.convert("L")
    small.thumbnail((_GLANCE, _GLANCE), reducing_gap=_GAP)
    if orientation in TURNS:
        small = small.transpose(TURNS[orientation])
    edges = small.filter(ImageFilter.FIND_EDGES)
    columns = edges.resize((small.width, 1), Image.Resampling.BOX).tobytes()
    rows = edges.resize((1, small.height), Image.Resampling.BOX).tobytes()
    left, top, right, bottom = where.crop
    return (
        _densest(columns, (right - left) / seen[0]),
        _densest(rows, (bottom - top) / seen[1]),
    )


def _densest(line: bytes, share: float) -> float:
    """Return where the window over `share` of a line holds most, from 0 to 1."""
    width = max(1, round(len(line) * share))
    room = len(line) - width
    if room <= 0:
        return 0.5
    sums = [sum(line[start : start + width]) for start in range(room + 1)]
    best = max(sums)
    # Of several equal places the middle one: a plain picture is cut in its middle.
    places = [start for start, total in enumerate(sums) if total == best]
    return places[len(places) // 2] / room
