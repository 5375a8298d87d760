"""Pixels in, the bytes of a file out: one entry for each format. Runs in workers only.

No format starts threads of its own: the cores belong to the other workers.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple

import PIL
from PIL import Image, features

from offloop.demo import plugins  # noqa: F401  # registers what can be written
from offloop.demo.colours import flatten
from offloop.demo.problems import Problem
from offloop.demo.recipe import ANIMATED, FORMATS, LOSSY, MAX_SIDE

if TYPE_CHECKING:
    from collections.abc import Callable

    from offloop.demo.geometry import Size
    from offloop.demo.recipe import Recipe

__all__ = ["QUALITY", "Film", "check_size", "versions", "writable", "write"]

# Pillow's name of each format.
_NAMES = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "avif": "AVIF",
    "gif": "GIF",
    "tiff": "TIFF",
    "jp2": "JPEG2000",
    "qoi": "QOI",
    "heic": "HEIF",
    "jxl": "JXL",
}

#: default quality of each lossy format: they look alike at these values.
QUALITY = {"jpeg": 80, "webp": 79, "avif": 63, "jp2": 80, "heic": 63, "jxl": 78}

_KEEPS_EXIF = ("jpeg", "png", "webp", "avif", "heic", "jxl")
_KEEPS_PROFILE = ("jpeg", "png", "webp", "avif", "tiff", "heic", "jxl")


_FEATURES = {
    "libjpeg-turbo": "libjpeg_turbo",
    "libwebp": "webp",
    "libavif": "avif",
    "OpenJPEG": "jpg_2000",
    "zlib": "zlib",
    "LittleCMS": "littlecms2",
}


class Film(NamedTuple):
    """Finished pixels, and what goes into the file beside them.

    Attributes:
        frames: all of one size; more than one: an animation.
        durations: milliseconds that each frame is shown.
        loop: how often an animation runs; 0: for ever.
        exif, icc: data to be written along, or b"". There is no orientation in it: the
            pixels are upright, and one in an AVIF animation crashes Pillow 13.0.
    """

    frames: list[Image.Image]
    durations: list[int]
    loop: int = 0
    exif: bytes = b""
    icc: bytes = b""


def writable() -> tuple[str, ...]:
    """Return the formats that this installation can write."""
    return tuple(name for name in FORMATS if _NAMES[name] in Image.SAVE)


def versions() -> dict[str, str]:
    """Return the version of each library that decides what a file looks like."""
    found = {"Pillow": PIL.__version__}
    for name, feature in _FEATURES.items():
        if (version := features.version(feature)) is not None:
            found[name] = version
    return found


def check_size(format: str, size: Size, max_pixels: int) -> None:
    """Refuse a result that is too large, before any work is done for it.

    Raises:
        Problem: 422 when it is, 400 when the format cannot be written at all.
    """
    if _NAMES[format] not in Image.SAVE:  # Pillow can be built without some
        raise Problem(400, f"This server cannot write {format}.", "format")
    if size[0] * size[1] > max_pixels:
        raise Problem(
            422,
            f"The result would have {size[0]}x{size[1]} pixels; "
            f"{max_pixels / 1e6:.1f} megapixels are allowed.",
        )
    if max(size) > MAX_SIDE:
        raise Problem(
            422,
            f"The result would be {size[0]}x{size[1]}; {MAX_SIDE} pixels a side are "
            "allowed.",
        )


def write(film: Film, format: str, recipe: Recipe) -> tuple[bytes, int | None]:
    """Return the file, and the quality that it has; None where there is no such thing.

    Args:
        film: pixels.
        format: a name of `FORMATS`.
        recipe: how to encode.

    Raises:
        Problem: 422 when the file cannot be made as small as the recipe says.
    """
    film = film._replace(frames=[_fitting(frame, format) for frame in film.frames])
    if format not in LOSSY or _is_lossless(format, recipe):
        data = _save(film, format, recipe, 0)
        _check_bytes(data, recipe)
        return data, None
    quality = recipe.quality or QUALITY[format]
    data = _save(film, format, recipe, quality)
    if recipe.max_bytes is None or len(data) <= recipe.max_bytes:
        return data, quality
    return _smaller(film, format, recipe, quality - 1)


def _smaller(film: Film, format: str, recipe: Recipe, most: int) -> tuple[bytes, int]:
    """Return the file of the best quality that fits, by halving the range."""
    best = None
    least = 1
    data = b""
    while least <= most:
        quality = (least + most) // 2
        data = _save(film, format, recipe, quality)
        if len(data) <= (recipe.max_bytes or 0):
            best, least = (data, quality), quality + 1
        else:
            most = quality - 1
    if best is None:
        _check_bytes(data or _save(film, format, recipe, 1), recipe)
        raise AssertionError("unreachable: the last one tried was too large")
    return best


def _check_bytes(data: bytes, recipe: Recipe) -> None:
    if recipe.max_bytes is not None and len(data) > recipe.max_bytes:
        raise Problem(
            422,
            f"The result has {len(data):,} bytes at the lowest quality; max_bytes "
            f"allows {recipe.max_bytes:,}. Ask for fewer pixels or another format.",
            "max_bytes",
        )


def _is_lossless(format: str, recipe: Recipe) -> bool:
    return recipe.lossless and format in _LOSSLESS


def _fitting(image: Image.Image, format: str) -> Image.Image:
    """Return the image in a mode that the format's encoder takes as it is."""
    if format == "jpeg":
        return flatten(image, None)
    if format == "gif" and image.mode == "LA":
        return image.convert("RGBA")  # the encoder would drop the alpha of LA
    if format in ("qoi", "heic") and image.mode in ("L", "LA"):
        return image.convert("RGBA" if image.mode == "LA" else "RGB")
    return image


def _save(film: Film, format: str, recipe: Recipe, quality: int) -> bytes:
    options = _OPTIONS[format](recipe, quality)
    if film.exif and format in _KEEPS_EXIF:
        options["exif"] = film.exif
    if film.icc and format in _KEEPS_PROFILE:
        options["icc_profile"] = film.icc
    first, *others = film.frames
    if others and format in ANIMATED:
        options |= {"save_all": True, "append_images": others, "loop": film.loop}
        options["duration"] = film.durations
    out = io.BytesIO()
    first.save(out, _NAMES[format], **options)
    return out.getvalue()


def _jpeg(recipe: Recipe, quality: int) -> dict[str, Any]:
    return {
        "quality": quality,
        "progressive": recipe.progressive,
        "subsampling": recipe.subsampling,
    }


def _webp(recipe: Recipe, quality: int) -> dict[str, Any]:
    # Without loss, the quality is an effort, and 0 means the least of it.
    return {
        "quality": quality,
        "lossless": _is_lossless("webp", recipe),
        "method": recipe.method,
    }


def _avif(recipe: Recipe, quality: int) -> dict[str, Any]:
    if _is_lossless("avif", recipe):
        # The encoder's own way: all of the quality, and no change of colour space.
        lossless = {"quality": 100, "subsampling": "4:4:4"}
        return {**lossless, "speed": recipe.speed, "max_threads": 1}
    return {
        "quality": quality,
        "subsampling": recipe.subsampling,
        "speed": recipe.speed,
        "max_threads": 1,
    }


def _jp2(recipe: Recipe, quality: int) -> dict[str, Any]:
    if _is_lossless("jp2", recipe):
        return {}
    # In decibels of the error: 28 is visibly poor, 48 hard to tell from the source.
    level = 28 + quality / 5
    return {"irreversible": True, "quality_mode": "dB", "quality_layers": [level]}


def _jxl(recipe: Recipe, quality: int) -> dict[str, Any]:
    if _is_lossless("jxl", recipe):
        return {"lossless": True, "num_threads": 0}
    return {"quality": quality, "num_threads": 0}


_OPTIONS: dict[str, Callable[[Recipe, int], dict[str, Any]]] = {
    "jpeg": _jpeg,
    "png": lambda recipe, quality: {},
    "webp": _webp,
    "avif": _avif,
    "gif": lambda recipe, quality: {},
    "tiff": lambda recipe, quality: {"compression": "tiff_deflate"},
    "jp2": _jp2,
    "qoi": lambda recipe, quality: {},
    "heic": lambda recipe, quality: {"quality": quality},
    "jxl": _jxl,
}

_LOSSLESS = ("webp", "avif", "jp2", "jxl")
