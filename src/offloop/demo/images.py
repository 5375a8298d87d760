"""Bytes of an image in, bytes of another out. Runs in workers only.

    read ─▶ check every size ─▶ arrange, step by step ─▶ choose the format ─▶ write

Reading is `source`'s business; what fails after it is our mistake and not the file's,
and is not hidden.
"""

from __future__ import annotations

import os
from time import perf_counter
from typing import TYPE_CHECKING

from offloop.demo import measures, source
from offloop.demo.accept import choose
from offloop.demo.arrange import arrange, plan
from offloop.demo.jobs import Encoded
from offloop.demo.recipe import ANIMATED
from offloop.demo.writers import Film, check_size, write

if TYPE_CHECKING:
    from PIL import Image

    from offloop.demo.geometry import Size
    from offloop.demo.recipe import Recipe
    from offloop.demo.source import Source

__all__ = ["SAME_FORMAT", "encode", "render"]

#: Pillow's name of each source format that can also be written.
SAME_FORMAT = {
    "JPEG": "jpeg",
    "MPO": "jpeg",
    "PNG": "png",
    "WEBP": "webp",
    "AVIF": "avif",
    "GIF": "gif",
    "TIFF": "tiff",
    "JPEG2000": "jp2",
    "QOI": "qoi",
    "HEIF": "heic",
    "JXL": "jxl",
}


def encode(data: bytes | bytearray, recipe: Recipe, max_pixels: int) -> Encoded:
    """Decode an image file and make of it what the recipe says.

    Args:
        data: the file.
        recipe: what to make of it.
        max_pixels: the most that the source may have, over all its frames, and that
            the result may have.

    Raises:
        Problem: 415 when it is not an image of an accepted format; 422 when it is
            damaged, or when it or the result is too large.
    """
    started = perf_counter()
    return render(source.read(data, recipe, max_pixels), recipe, max_pixels, started)


def render(
    picture: Source, recipe: Recipe, max_pixels: int, started: float | None = None
) -> Encoded:
    """Make of a decoded picture what the recipe says.

    Args:
        picture: it is used up.
        recipe: what to make of it.
        max_pixels: the most that the result may have.
        started: when decoding began, on `time.perf_counter`; None: just now.

    Raises:
        Problem: 422 when the result would be too large, or later frames are damaged;
            400 when this installation cannot write the format.
    """
    decoded = perf_counter()
    format = _format(picture, recipe)
    sizes = _sizes(picture, recipe)
    for size in sizes[1:]:
        check_size(format, size, max_pixels)
    film = _film(picture, recipe, sizes, format)
    arranged = perf_counter()
    data, quality = write(film, format, recipe)
    written = perf_counter()
    return Encoded(
        data,
        format,
        *sizes[-1],
        source=sizes[0],
        quality=quality,
        frames=len(film.frames),
        decode=decoded - (decoded if started is None else started),
        resize=arranged - decoded,
        encode=written - arranged,
        pid=os.getpid(),
        likeness=measures.compare(film.frames[0], data) if recipe.measure else None,
        origin=picture.format,
    )


def _format(picture: Source, recipe: Recipe) -> str:
    if recipe.format is not None:
        return recipe.format
    return choose(
        recipe.accepted,
        SAME_FORMAT.get(picture.format),
        alpha=picture.image.has_transparency_data,
        animated=picture.more is not None,
    )


def _sizes(picture: Source, recipe: Recipe) -> list[Size]:
    """Return the upright size of the source, and those after each step."""
    sizes = [picture.upright]
    size, orientation = picture.size, picture.orientation
    for step in recipe.steps:
        size, orientation = plan(size, orientation, step).canvas, 1
        sizes.append(size)
    return sizes


def _film(picture: Source, recipe: Recipe, sizes: list[Size], format: str) -> Film:
    frames = [_arranged(picture.image, picture, recipe, sizes)]
    durations = [picture.duration]
    # One after the other: the frames of the source are never in memory together.
    more = picture.more if format in ANIMATED else None
    for frame, duration in more or ():
        frames.append(_arranged(frame, picture, recipe, sizes))
        durations.append(duration)
    icc = picture.icc if recipe.icc == "keep" else b""
    if frames[0].mode not in ("RGB", "RGBA"):
        icc = b""  # it described the colours that were dropped
    return Film(frames, durations, picture.loop, picture.exif, icc)


def _arranged(
    image: Image.Image, picture: Source, recipe: Recipe, sizes: list[Size]
) -> Image.Image:
    first, *others = recipe.steps
    image = arrange(image, picture.size, picture.orientation, picture.icc, first)
    for step, size in zip(others, sizes[1:], strict=False):
        image = arrange(image, size, 1, b"", step)
    return image
