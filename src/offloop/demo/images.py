"""Bytes of an image in, bytes of another out. Runs in workers only.

    read ─▶ check the result's size ─▶ scale ─▶ colours ─▶ turn upright ─▶ pad ─▶ encode

The order is by price: every step costs by the pixel, so scaling comes first, and what
is turned or coloured is as small as it can be. Reading is `source`'s business; what
fails after it is our mistake and not the file's, and is not hidden.
"""

from __future__ import annotations

import io
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageCms

from offloop.demo import source
from offloop.demo.geometry import layout
from offloop.demo.jobs import Encoded
from offloop.demo.problems import Problem

if TYPE_CHECKING:
    from offloop.demo.geometry import Layout, Size
    from offloop.demo.recipe import Recipe
    from offloop.demo.source import Source

__all__ = ["encode", "render"]

# How to turn an image upright, by its EXIF orientation; from 5 on it lies on its side.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Pillow's name of each source format that can also be written; others become PNG.
_SAME_FORMAT = {
    "JPEG": "jpeg",
    "MPO": "jpeg",
    "WEBP": "webp",
    "AVIF": "avif",
    "GIF": "gif",
    "TIFF": "tiff",
}

# The longest side that a format can express, where images here could exceed it.
_LONGEST = {"jpeg": 65_500, "webp": 16_383, "gif": 65_535, "avif": 65_535}

# Default quality of each lossy format: they look alike at these values.
_QUALITY = {"jpeg": 80, "webp": 79, "avif": 63}

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "jpeg": {"progressive": True},
    "png": {},
    "webp": {"method": 4},
    # One thread: the cores belong to the other workers. Speed 8 of 10 takes half the
    # time of Pillow's 6 for a few per cent more bytes.
    "avif": {"speed": 8, "max_threads": 1},
    "gif": {},
    "tiff": {"compression": "tiff_deflate"},
}

_KEEPS_EXIF = ("jpeg", "png", "webp", "avif")

# The colour space that a profile must have to describe an image of that mode.
_PROFILE_SPACE = {"L": "GRAY", "RGB": "RGB", "RGBA": "RGB", "CMYK": "CMYK"}

_SRGB = ImageCms.createProfile("sRGB")

# When an image is scaled by much, it is first shrunk by plain averaging to this many
# times the wanted size, and then well: a third of the time, hard to tell apart.
_GAP = 2.0


def encode(data: bytes | bytearray, recipe: Recipe, max_pixels: int) -> Encoded:
    """Decode an image file and make of it what the recipe says.

    Of an animation the first frame is used; all of them count for the limit.

    Args:
        data: the file.
        recipe: what to make of it.
        max_pixels: the most that the source, and the result, may have.

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
        Problem: 422 when the result would be too large, 400 when this installation
            cannot write the format.
    """
    decoded = perf_counter()
    format = recipe.format or _SAME_FORMAT.get(picture.format, "png")
    plan = layout(*picture.size, recipe)
    _check_result(format, plan.canvas, max_pixels)
    image = _arrange(picture, plan, alpha=format != "jpeg")
    resized = perf_counter()
    exif = picture.exif if format in _KEEPS_EXIF else b""
    data = _save(image, format, recipe.quality, exif)
    return Encoded(
        data,
        format,
        *image.size,
        source=picture.size,
        decode=decoded - (decoded if started is None else started),
        resize=resized - decoded,
        encode=perf_counter() - resized,
    )


def _check_result(format: str, size: Size, max_pixels: int) -> None:
    if format.upper() not in Image.SAVE:  # Pillow can be built without some
        raise Problem(400, f"This server cannot write {format}.", "format")
    if size[0] * size[1] > max_pixels:
        raise Problem(
            422,
            f"The result would have {size[0]}x{size[1]} pixels; "
            f"{max_pixels / 1e6:.1f} megapixels are allowed.",
        )
    longest = _LONGEST.get(format, max_pixels)
    if max(size) > longest:
        raise Problem(
            422,
            f"The result would be {size[0]}x{size[1]}; {format} ends at {longest}.",
        )


def _arrange(picture: Source, plan: Layout, *, alpha: bool) -> Image.Image:
    """Return the pixels of the result: scaled, in sRGB, upright and padded."""
    image = _scale(picture, plan)
    image = _in_srgb(image, picture.icc)
    if picture.orientation in _TURNS:
        image = image.transpose(_TURNS[picture.orientation])
    if image.size != plan.canvas:
        image = _pad(image, plan.canvas)
    if not alpha and image.has_transparency_data:
        image = _flatten(image)
    image.info = {}  # else encoders would write what the source's file said
    return image


def _scale(picture: Source, plan: Layout) -> Image.Image:
    image, size, crop, whole = picture.image, plan.scaled, plan.crop, picture.size
    if picture.orientation > 4:
        size, crop, whole = size[::-1], crop[::-1], whole[::-1]
    if size == image.size and crop == whole:
        return image
    # The decoder may have shrunk the image; the crop is in pixels of the file.
    width = crop[0] * image.width / whole[0]
    height = crop[1] * image.height / whole[1]
    left, top = (image.width - width) / 2, (image.height - height) / 2
    box = (left, top, left + width, top + height)
    return image.resize(size, Image.Resampling.LANCZOS, box, _GAP)


def _in_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """Convert by the profile, if there is one that fits; a bad one is ignored."""
    grey = image.mode in ("L", "LA")
    if icc and image.mode in _PROFILE_SPACE:
        with suppress(ImageCms.PyCMSError, OSError):
            image = _apply_profile(image, icc)
    if grey and image.mode == "RGB":
        return image.convert("L")
    return image.convert("RGB") if image.mode == "CMYK" else image


def _apply_profile(image: Image.Image, icc: bytes) -> Image.Image:
    profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    if profile.profile.xcolor_space.strip() != _PROFILE_SPACE[image.mode]:
        return image
    if ImageCms.getProfileDescription(profile).startswith("sRGB"):
        return image
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    converted = ImageCms.profileToProfile(image, profile, _SRGB, outputMode=mode)
    assert converted is not None  # only None when it works in place
    return converted


def _pad(image: Image.Image, size: Size) -> Image.Image:
    paper = Image.new(image.mode, size, _paper(image.mode))
    left, top = (size[0] - image.width) // 2, (size[1] - image.height) // 2
    paper.paste(image, (left, top))
    return paper


def _paper(mode: str) -> tuple[int, ...]:
    """Return white, or white that is fully transparent where the mode has alpha."""
    return tuple(0 if band == "A" else 255 for band in mode)


def _flatten(image: Image.Image) -> Image.Image:
    mode = image.mode.removesuffix("A")
    paper = Image.new(mode, image.size, _paper(mode))
    paper.paste(image.convert(mode), mask=image.getchannel("A"))
    return paper


def _save(image: Image.Image, format: str, quality: int | None, exif: bytes) -> bytes:
    options = dict(_SAVE_OPTIONS[format])
    if format in _QUALITY:
        options["quality"] = quality or _QUALITY[format]
    if exif:
        options["exif"] = exif
    if format == "gif" and image.mode == "LA":
        image = image.convert("RGBA")  # the encoder would drop the alpha of LA
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()
