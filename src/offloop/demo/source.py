"""A file of unknown origin in, a decoded image out. Runs in workers only.

What comes in is hostile until shown otherwise. `Image.open` reads headers only; format
and sizes are checked before the first pixel is unpacked, and of an animation no more
frames ever are than asked for. Whatever goes wrong while the file is read is the file's
fault and becomes a `Problem`: decoders fail in more ways than can be listed.
"""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageCms

from offloop.demo import gif, jxl
from offloop.demo.geometry import layout, turned, upright
from offloop.demo.plugins import READERS
from offloop.demo.problems import Problem
from offloop.demo.recipe import LOSSY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offloop.demo.geometry import Size
    from offloop.demo.recipe import Recipe

__all__ = ["Look", "Source", "Summary", "blaming", "describe", "look", "read"]

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
    (0, b"\0\0\x01\0", "ICO"),
    (4, b"jP  \r\n\x87\n", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (0, b"qoif", "QOI"),
    (8, b"heic", "HEIF"),
    (8, b"heix", "HEIF"),
    (8, b"mif1", "HEIF"),
    (0, b"\xff\x0a", "JXL"),
    (4, b"JXL ", "JXL"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"<svg", "SVG"),
    (0, b"<?xml", "SVG"),
    (0, b"8BPS", "Photoshop"),
    (0, b"MZ", "a program"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (4, b"ftyp", "a film"),
)

# Their decoder can shrink while it decodes.
_SHRINKABLE = ("JPEG", "MPO")

# Pages and frames are counted by walking them, which a hostile file could make long.
_MAX_FRAMES = 1000

_ORIENTATION = 0x0112

# What is kept even when EXIF data is stripped: author and copyright.
_RIGHTS = (0x013B, 0x8298)

# The decoder of JPEGs leaves at least so many times the wanted pixels a side, and the
# rest is scaled well. Once is what a lossy format cannot show: a decoder that halves is
# 48 dB close to scaling all pixels, and the encoder keeps 40 of them. Twice is 52 dB,
# for results that keep every pixel, or most of what makes it.
_GAP_LOSSY, _GAP_FINE = 1, 2
_FINE_QUALITY = 90

# Formats whose further frames are an animation, and not pages or views.
_MOVING = ("GIF", "WEBP", "PNG", "AVIF")

# Beyond these, what a file says of its animation is taken for nonsense.
_MAX_DURATION = 60_000
_MAX_LOOPS = 65_535

# What pyo3 calls the panics of its modules; each of them has a class of its own.
_PANIC = "PanicException"

# A JPEG holds its EXIF data in one segment of 64 KiB.
_MAX_EXIF = 65_000


class Source(NamedTuple):
    """A decoded image and what its file said about it.

    Attributes:
        image: its first frame; perhaps smaller than the file's already.
        size: width and height in the file.
        orientation: the EXIF value, from 1 to 8, that says how to turn it.
        format: Pillow's name of the file's format.
        icc: its colour profile, or b"".
        exif: the EXIF data to be kept, without the orientation, or b"".
        more: further frames with their durations, decoded one by one as they are
            taken, which may raise a `Problem`; None: there are none.
        duration: milliseconds that the first frame is shown.
        loop: how often an animation runs; 0: for ever.
    """

    image: Image.Image
    size: Size
    orientation: int = 1
    format: str = "PNG"
    icc: bytes = b""
    exif: bytes = b""
    more: Iterator[tuple[Image.Image, int]] | None = None
    duration: int = 0
    loop: int = 0

    @property
    def upright(self) -> Size:
        """Width and height as people see it."""
        return upright(self.size, self.orientation)


class Summary(NamedTuple):
    """What the headers of an image file say.

    Attributes:
        format: name of the file format.
        width, height: in pixels, upright.
        mode: Pillow's name of the kind of pixels, such as "RGB".
        frames: number of frames or pages.
        pixels: summed over all frames.
        alpha: it may have transparent parts.
        orientation: the EXIF value, from 1 to 8.
        icc: name of its colour profile, or None.
        bytes: size of the file.
    """

    format: str
    width: int
    height: int
    mode: str
    frames: int
    pixels: int
    alpha: bool
    orientation: int
    icc: str | None
    bytes: int


def describe(data: bytes | bytearray, max_pixels: int) -> Summary:
    """Return what the headers of an image file say; no pixel is decoded.

    Args:
        data: the file.
        max_pixels: the most that a JPEG XL may have, which is decoded all the same.

    Raises:
        Problem: 415 when it is not an image of an accepted format; 422 when it is
            damaged.
    """
    with _reading(data, max_pixels) as image:
        frames = _frame_sizes(image, data)
        orientation = _orientation(image)
        return Summary(
            image.format or "",
            *upright(image.size, orientation),
            mode=image.mode,
            frames=len(frames),
            pixels=sum(width * height for width, height in frames),
            alpha=image.has_transparency_data,
            orientation=orientation,
            icc=_profile_name(image.info.get("icc_profile")),
            bytes=len(data),
        )


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
    with _reading(data, max_pixels) as image:
        frames = _check_pixels(image, data, max_pixels)
        size = image.size
        if image.format in _SHRINKABLE:
            _shrink_while_decoding(image, recipe.steps[0], _gap(recipe))
        image.load()
        frames = min(frames, recipe.frames) if image.format in _MOVING else 1
        return Source(
            _in_plain_mode(image.copy() if frames > 1 else image),
            size,
            _orientation(image),
            image.format or "PNG",
            image.info.get("icc_profile") or b"",
            _exif(image, rights_only=recipe.strip),
            _further_frames(image, data, frames) if frames > 1 else None,
            _duration(image),
            _loop(image),
        )


class Look(NamedTuple):
    """What a file is, whose sizes have been checked.

    Attributes:
        format: Pillow's name.
        size: width and height in the file.
        orientation: the EXIF value, from 1 to 8.
        alpha: it may have transparent parts.
        frames: how many it has.
        rights: EXIF data to be kept with author and copyright, or b"".
    """

    format: str
    size: Size
    orientation: int
    alpha: bool
    frames: int
    rights: bytes


def look(data: bytes | bytearray, max_pixels: int) -> Look:
    """Check a file for those that decode it by other means; decodes no pixel.

    Raises:
        Problem: as `read`.
    """
    with _reading(data, max_pixels) as image:
        frames = _check_pixels(image, data, max_pixels)
        return Look(
            image.format or "",
            image.size,
            _orientation(image),
            image.has_transparency_data,
            frames,
            _exif(image, rights_only=True),
        )


def _further_frames(
    image: Image.Image, data: bytes | bytearray, frames: int
) -> Iterator[tuple[Image.Image, int]]:
    for number in range(1, frames):
        with blaming(data):
            try:
                image.seek(number)
                image.load()
            except EOFError:  # it has fewer than it says, which others show as well
                return
            yield _in_plain_mode(image.copy()), _duration(image)


def _duration(image: Image.Image) -> int:
    value = image.info.get("duration", 0)
    fine = isinstance(value, int | float) and 0 <= value <= _MAX_DURATION
    return round(value) if fine else 0


def _loop(image: Image.Image) -> int:
    # A GIF without the entry plays once; for the others, and for us, 1 says so.
    value = image.info.get("loop", 1 if image.format == "GIF" else 0)
    return value if isinstance(value, int) and 0 <= value <= _MAX_LOOPS else 0


@contextmanager
def _reading(data: bytes | bytearray, max_pixels: int) -> Iterator[Image.Image]:
    """Open a file: its headers are read, and whatever goes wrong is its own fault."""
    with blaming(data):
        if _name(data) == "JXL":
            _check_jxl(data, max_pixels)
        Image.MAX_IMAGE_PIXELS = None
        image = Image.open(io.BytesIO(data), formats=READERS)
        # What the headers say is checked by us, over all frames. This is for frames
        # that turn out to be larger.
        Image.MAX_IMAGE_PIXELS = max_pixels
        yield image


@contextmanager
def blaming(data: bytes | bytearray) -> Iterator[None]:
    """Turn every failure into the problem that the file has."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except Problem:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        allowed = Image.MAX_IMAGE_PIXELS or 0
        raise _too_many_pixels("more pixels than its header says", allowed) from None
    except BaseException as error:
        # A decoder written in Rust panics with what is no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        name = _name(data)
        if name not in READERS:
            looks = f"This looks like {name}" if name else "This is no known image"
            accepted = ", ".join(READERS)
            raise Problem(415, f"{looks}; accepted are {accepted}.") from None
        raise Problem(422, f"The {name} file is damaged or cut off.") from None


def _check_jxl(data: bytes | bytearray, max_pixels: int) -> None:
    """Refuse a JPEG XL that is too large: opening it decodes all of it."""
    size = jxl.size_of(data)
    if size is None:
        raise ValueError("it does not say how large it is")
    if size[0] * size[1] > max_pixels:
        raise _too_many_pixels(f"{size[0] * size[1] / 1e6:.1f} megapixels", max_pixels)


def _name(data: bytes | bytearray) -> str | None:
    for offset, signature, name in _SIGNATURES:
        if data[offset : offset + len(signature)] == signature:
            return name
    return None


def _check_pixels(image: Image.Image, data: bytes | bytearray, max_pixels: int) -> int:
    """Refuse too many pixels, and return the number of frames."""
    sizes = _frame_sizes(image, data)
    pixels = sum(width * height for width, height in sizes)
    if pixels > max_pixels:
        frames = f" in {len(sizes)} frames" if len(sizes) > 1 else ""
        megapixels = f"{pixels / 1e6:.1f} megapixels{frames}"
        raise _too_many_pixels(megapixels, max_pixels)
    return len(sizes)


def _too_many_pixels(what: str, max_pixels: int) -> Problem:
    allowed = f"{max_pixels / 1e6:.1f} are allowed"
    return Problem(422, f"The image has {what}; {allowed}.")


def _frame_sizes(image: Image.Image, data: bytes | bytearray) -> list[Size]:
    """Return the size of each frame or page, without decoding any."""
    if image.format == "TIFF":
        return _page_sizes(image)
    if image.format == "GIF":
        frames = gif.count_frames(data, _MAX_FRAMES + 1)
    else:
        frames = getattr(image, "n_frames", 1)
    if frames > _MAX_FRAMES:
        raise _too_many_frames(image)
    return [image.size] * max(frames, 1)


def _page_sizes(image: Image.Image) -> list[Size]:
    sizes = [image.size]
    try:
        while len(sizes) <= _MAX_FRAMES:
            image.seek(len(sizes))
            sizes.append(image.size)
    except EOFError:
        image.seek(0)
        return sizes
    raise _too_many_frames(image)


def _too_many_frames(image: Image.Image) -> Problem:
    return Problem(422, f"The {image.format} file has more than {_MAX_FRAMES} frames.")


def _gap(recipe: Recipe) -> int:
    lossy = recipe.format in (None, *LOSSY) and not recipe.lossless
    fine = recipe.quality is not None and recipe.quality >= _FINE_QUALITY
    return _GAP_LOSSY if lossy and not fine else _GAP_FINE


def _shrink_while_decoding(image: Image.Image, recipe: Recipe, gap: int) -> None:
    """Let the decoder leave out what scaling would throw away: up to 8 times a side."""
    orientation = turned(_orientation(image), recipe)
    plan = layout(*upright(image.size, orientation), recipe)
    left, top, right, bottom = plan.crop
    scale = max(plan.scaled[0] / (right - left), plan.scaled[1] / (bottom - top))
    if scale * gap < 1:
        width, height = (ceil(side * scale * gap) for side in image.size)
        image.draft(image.mode, (width, height))


def _orientation(image: Image.Image) -> int:
    # Not before `load`, except for JPEGs: others may keep it at the end of the file.
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF data: the picture itself may be fine
        return 1
    return value if value in range(1, 9) else 1


def _exif(image: Image.Image, *, rights_only: bool) -> bytes:
    if "exif" not in image.info:  # a TIFF's own tags describe the file, not the picture
        return b""
    try:
        exif = image.getexif()
        if rights_only:
            kept = Image.Exif()
            kept.update({tag: exif[tag] for tag in _RIGHTS if tag in exif})
            exif = kept
        exif.pop(_ORIENTATION, None)
        data = exif.tobytes() if exif else b""
    except Exception:  # damaged: better none than what other programs choke on
        return b""
    return data if len(data) <= _MAX_EXIF else b""


def _profile_name(icc: bytes | None) -> str | None:
    if not icc:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        return ImageCms.getProfileDescription(profile).strip() or "unnamed"
    except (ImageCms.PyCMSError, OSError):
        return "damaged"


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
