"""A file of unknown origin in, a decoded image out. Runs in workers only.

What comes in is hostile until shown otherwise. `Image.open` reads headers only; format
and sizes are checked before the first pixel is unpacked, and only the first frame of an
animation ever is. Whatever goes wrong while the file is read is the file's fault and
becomes a `Problem`: decoders fail in more ways than can be listed.
"""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from offloop.demo.geometry import layout
from offloop.demo.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offloop.demo.geometry import Size
    from offloop.demo.recipe import Recipe

__all__ = ["Source", "read"]

# Importing a plugin registers its format. Left to itself, Pillow would import forty of
# them at the first image that it does not know, some of which start other programs.
_READERS = [
    plugin.format
    for plugin in (
        JpegImagePlugin.JpegImageFile,
        PngImagePlugin.PngImageFile,
        WebPImagePlugin.WebPImageFile,
        AvifImagePlugin.AvifImageFile,
        GifImagePlugin.GifImageFile,
        TiffImagePlugin.TiffImageFile,
        BmpImagePlugin.BmpImageFile,
    )
]

# Ours is checked instead, over all frames; Pillow only warns up to 179 megapixels.
Image.MAX_IMAGE_PIXELS = None

# The codec would start a thread for each core; the cores belong to the other workers.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1

# How files begin: offset, bytes, name. Those that are read here, so that a damaged one
# is not called "not an image"; and some that are not, so that the answer can name them.
_SIGNATURES = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (8, b"WEBP", "WEBP"),
    (8, b"avif", "AVIF"),
    (8, b"avis", "AVIF"),
    (0, b"GIF8", "GIF"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"BM", "BMP"),
    (8, b"heic", "HEIC"),
    (8, b"mif1", "HEIF"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "SVG"),
    (0, b"8BPS", "Photoshop"),
    (0, b"\0\0\x01\0", "icon"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
)

# Their decoder can shrink while it decodes.
_SHRINKABLE = ("JPEG", "MPO")

# Pages of a TIFF are counted by walking them, which a hostile file could make long.
_MAX_PAGES = 1000

_ORIENTATION = 0x0112

# A source may have this many times the pixels per side before it is scaled well; what
# is above is left out by the decoder. Pillow's documentation calls 2.0 hard to tell
# from scaling in one step.
_GAP = 2

# A JPEG holds its EXIF data in one segment of 64 KiB.
_MAX_EXIF = 65_000


class Source(NamedTuple):
    """A decoded image and what its file said about it.

    Attributes:
        image: its first frame; perhaps smaller than the file's already.
        size: width and height in the file, turned upright.
        orientation: the EXIF value, from 1 to 8, that says how to turn it.
        format: Pillow's name of the file's format.
        icc: its colour profile, or b"".
        exif: its EXIF data without the orientation, or b"".
    """

    image: Image.Image
    size: Size
    orientation: int = 1
    format: str = "PNG"
    icc: bytes = b""
    exif: bytes = b""


def read(data: bytes | bytearray, recipe: Recipe, max_pixels: int) -> Source:
    """Decode the first frame of an image file.

    Args:
        data: the file.
        recipe: what will be made of it; a JPEG that will be small is decoded small.
        max_pixels: the most that it may have, summed over its frames.

    Raises:
        Problem: 415 when it is not an image of an accepted format; 422 when it is
            damaged or too large.
    """
    with _blaming(data), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data), formats=_READERS)
        _check_pixels(image, max_pixels)
        size = image.size
        if image.format in _SHRINKABLE:
            _shrink_while_decoding(image, recipe)
        image.load()
        orientation = _orientation(image)
        return Source(
            _in_plain_mode(image),
            _upright(size, orientation),
            orientation,
            image.format or "PNG",
            image.info.get("icc_profile") or b"",
            b"" if recipe.strip else _exif(image),
        )


@contextmanager
def _blaming(data: bytes | bytearray) -> Iterator[None]:
    """Turn every failure into the problem that the file has."""
    try:
        yield
    except Problem:
        raise
    except Exception:
        name = _name(data)
        if name not in _READERS:
            looks = f"This looks like {name}" if name else "This is no known image"
            accepted = ", ".join(_READERS)
            raise Problem(415, f"{looks}; accepted are {accepted}.") from None
        raise Problem(422, f"The {name} file is damaged or cut off.") from None


def _name(data: bytes | bytearray) -> str | None:
    for offset, signature, name in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return name
    return None


def _check_pixels(image: Image.Image, max_pixels: int) -> None:
    pages = _page_sizes(image)
    pixels = sum(width * height for width, height in pages)
    if pixels > max_pixels:
        frames = f" in {len(pages)} frames" if len(pages) > 1 else ""
        raise Problem(
            422,
            f"The image has {pixels / 1e6:.1f} megapixels{frames}; "
            f"{max_pixels / 1e6:.1f} are allowed.",
        )


def _page_sizes(image: Image.Image) -> list[Size]:
    if image.format != "TIFF":
        return [image.size] * getattr(image, "n_frames", 1)
    sizes = [image.size]
    try:
        while len(sizes) <= _MAX_PAGES:
            image.seek(len(sizes))
            sizes.append(image.size)
    except EOFError:
        image.seek(0)
        return sizes
    raise Problem(422, f"The TIFF file has more than {_MAX_PAGES} pages.")


def _shrink_while_decoding(image: Image.Image, recipe: Recipe) -> None:
    """Let the decoder leave out what scaling would throw away: up to 8 times a side."""
    orientation = _orientation(image)
    plan = layout(*_upright(image.size, orientation), recipe)
    scale = max(s / c for s, c in zip(plan.scaled, plan.crop, strict=True))
    if scale * _GAP < 1:
        width, height = (ceil(side * scale * _GAP) for side in image.size)
        image.draft(image.mode, (width, height))


def _orientation(image: Image.Image) -> int:
    # Not before `load`, except for JPEGs: others may keep it at the end of the file.
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data: the picture itself may be fine
        return 1
    return value if value in range(1, 9) else 1


def _upright(size: Size, orientation: int) -> Size:
    return (size[1], size[0]) if orientation > 4 else size


def _exif(image: Image.Image) -> bytes:
    if "exif" not in image.info:  # a TIFF's own tags describe the file, not the picture
        return b""
    try:
        exif = image.getexif()
        exif.pop(_ORIENTATION, None)
        data = exif.tobytes()
    except Exception:  # damaged: better none than what other programs choke on
        return b""
    return data if len(data) <= _MAX_EXIF else b""


def _in_plain_mode(image: Image.Image) -> Image.Image:
    """Return the image as L, LA, RGB, RGBA or CMYK, 8 bits each."""
    mode = image.mode
    if mode[0] in "IF":
        return _in_8_bits(image)
    if mode != "CMYK":
        mode = "L" if mode in ("1", "L", "LA") else "RGB"
        mode += "A" if image.has_transparency_data else ""
    return image if image.mode == mode else image.convert(mode)


def _in_8_bits(image: Image.Image) -> Image.Image:
    low, high = 0.0, 65535.0
    if not image.mode.startswith("I;16"):  # the wider ones have no agreed white
        low, high = image.getextrema()  # type: ignore[assignment]  # one band: one pair
    scale = 255 / ((high - low) or 1)
    return image.point(lambda value: value * scale - low * scale).convert("L")
