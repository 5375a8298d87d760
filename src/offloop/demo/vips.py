"""The same work by libvips, which is faster at some of it. Runs in workers only.

A file is opened by Pillow first, which reads its headers: formats and sizes are checked
in one place. What libvips would do otherwise than Pillow does (animations, filters,
searching for a quality, metadata that is kept) is left to Pillow; so whoever asks sees
no difference but the time.

    source.look ─▶ crop ─▶ scale ─▶ sRGB ─▶ turn ─▶ pad ─▶ background ─▶ write
"""

from __future__ import annotations

import logging
import os
from time import perf_counter
from typing import TYPE_CHECKING, Any

import pyvips

from offloop.demo import images, source
from offloop.demo.accept import choose
from offloop.demo.arrange import plan
from offloop.demo.geometry import in_file, turned, upright
from offloop.demo.jobs import Encoded
from offloop.demo.writers import QUALITY, check_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from offloop.demo.geometry import Layout
    from offloop.demo.recipe import Recipe
    from offloop.demo.source import Look

__all__ = ["encode", "version"]

# What is wrong with a file is said to who sent it, not to the log.
logging.getLogger("pyvips").setLevel(logging.CRITICAL)

# Each image comes once, and the cores belong to the other workers.
pyvips.cache_set_max(0)
pyvips.vips_lib.vips_concurrency_set(1)

# What Pillow may open and libvips is trusted to decode.
_READS = ("JPEG", "PNG", "WEBP")

_WHITE = (255, 255, 255)


def version() -> str:
    """Return the version of libvips."""
    return ".".join(str(pyvips.version(part)) for part in range(3))


def encode(data: bytes | bytearray, recipe: Recipe, max_pixels: int) -> Encoded:
    """Decode an image file and make of it what the recipe says; see `images.encode`.

    Raises:
        Problem: as `images.encode`.
    """
    started = perf_counter()
    seen = source.look(data, max_pixels)
    format = recipe.format or choose(
        recipe.accepted,
        images.SAME_FORMAT.get(seen.format),
        alpha=seen.alpha,
        animated=seen.frames > 1 and recipe.frames > 1,
    )
    if not _can(seen, format, recipe):
        return images.encode(data, recipe, max_pixels)
    where = plan(seen.size, seen.orientation, recipe)
    check_size(format, where.canvas, max_pixels)
    with source.blaming(data):
        image = _arranged(data, seen, recipe, where)
        opened = perf_counter()
        # Nothing is computed before it is written: this is all of the work.
        quality = None if recipe.lossless else recipe.quality or QUALITY.get(format)
        written = _WRITERS[format](image, recipe, quality or 100)
    return Encoded(
        written,
        format,
        *where.canvas,
        source=upright(seen.size, seen.orientation),
        quality=quality if format in QUALITY else None,
        frames=1,
        decode=opened - started,
        resize=0.0,
        encode=perf_counter() - opened,
        pid=os.getpid(),
        origin=seen.format,
    )


def _can(seen: Look, format: str, recipe: Recipe) -> bool:
    return (
        format in _WRITERS
        and seen.format in _READS
        and not (seen.frames > 1 or seen.rights or recipe.before)
        and not (recipe.measure or recipe.max_bytes or recipe.blur or recipe.sharpen)
        and recipe.strip
        and not recipe.grayscale  # which is a matter of taste
        and recipe.icc == "srgb"
        and recipe.gravity != "attention"
    )


def _arranged(
    data: bytes | bytearray, seen: Look, recipe: Recipe, where: Layout
) -> pyvips.Image:
    orientation = turned(seen.orientation, recipe)
    box = in_file(where.crop, upright(seen.size, orientation), orientation)
    wide, high = upright(where.scaled, orientation)
    shrink = _shrink_while_decoding(seen, box, (wide, high))
    how = {"shrink": shrink} if seen.format == "JPEG" else {}
    image = pyvips.Image.new_from_buffer(bytes(data), "", fail_on="error", **how)
    x, y = image.width / seen.size[0], image.height / seen.size[1]
    left, top = round(box[0] * x), round(box[1] * y)
    right = min(max(round(box[2] * x), left + 1), image.width)
    bottom = min(max(round(box[3] * y), top + 1), image.height)
    if (left, top, right, bottom) != (0, 0, image.width, image.height):
        image = image.crop(left, top, right - left, bottom - top)
    image = _in_srgb(image)
    image = _scaled(image, wide, high)
    image = _turned(image, orientation)
    return _on_paper(image, where.canvas, recipe)


def _shrink_while_decoding(seen: Look, box: Any, size: tuple[int, int]) -> int:
    """Return by how much a JPEG may be shrunk: twice the size is left at least."""
    across, down = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
    return next((n for n in (8, 4, 2) if min(across, down) >= 2 * n), 1)


def _in_srgb(image: pyvips.Image) -> pyvips.Image:
    if image.get_typeof("icc-profile-data"):
        try:
            image = image.icc_transform("srgb", embedded=True, intent="perceptual")
            image = image.copy_memory()
        except pyvips.Error:  # a bad profile is ignored
            image.remove("icc-profile-data")
    grey = image.interpretation in ("b-w", "grey16")
    image = image.colourspace("b-w" if grey else "srgb")
    return image if image.format == "uchar" else image.cast("uchar")


def _scaled(image: pyvips.Image, wide: int, high: int) -> pyvips.Image:
    if (image.width, image.height) == (wide, high):
        return image
    how = {"vscale": high / image.height, "kernel": "lanczos3"}
    if not image.hasalpha():
        image = image.resize(wide / image.width, **how)
    else:
        # What is not seen must not bleed into what is.
        image = image.premultiply().resize(wide / image.width, **how)
        image = image.unpremultiply().cast("uchar")
    # Rounding may miss by one.
    if (image.width, image.height) != (wide, high):
        image = image.gravity("centre", wide, high, extend="copy")
    return image


def _turned(image: pyvips.Image, orientation: int) -> pyvips.Image:
    if orientation in (5, 6):
        image = image.rot90()
    elif orientation in (7, 8):
        image = image.rot270()
    elif orientation == 3:
        image = image.rot180()
    if orientation in (2, 5, 7):
        image = image.fliphor()
    return image.flipver() if orientation == 4 else image


def _on_paper(
    image: pyvips.Image, canvas: tuple[int, int], recipe: Recipe
) -> pyvips.Image:
    colour = recipe.background
    if colour is not None and len(set(colour)) > 1 and image.bands < 3:
        image = image.colourspace("srgb")
    paper = list(colour or _WHITE)[: 3 if image.bands > 2 else 1]
    if (image.width, image.height) != canvas:
        sheet = [*paper, 0 if colour is None else 255] if image.hasalpha() else paper
        image = image.gravity("centre", *canvas, extend="background", background=sheet)
    if colour is not None and image.hasalpha():
        image = image.flatten(background=paper)
    return image


def _jpeg(image: pyvips.Image, recipe: Recipe, quality: int) -> Any:
    if image.hasalpha():
        image = image.flatten(background=list(_WHITE)[: 3 if image.bands > 2 else 1])
    return image.jpegsave_buffer(
        Q=quality,
        interlace=recipe.progressive,
        optimize_coding=recipe.progressive,
        subsample_mode="on" if recipe.subsampling == "4:2:0" else "off",
        keep="none",
    )


def _webp(image: pyvips.Image, recipe: Recipe, quality: int) -> Any:
    return image.webpsave_buffer(
        Q=quality, lossless=recipe.lossless, effort=recipe.method, keep="none"
    )


def _png(image: pyvips.Image, recipe: Recipe, quality: int) -> Any:
    return image.pngsave_buffer(keep="none")


_WRITERS: dict[str, Callable[[pyvips.Image, Recipe, int], Any]] = {
    "jpeg": _jpeg,
    "webp": _webp,
    "png": _png,
}
