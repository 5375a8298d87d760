"""What to make of an image: plain data, checked by `parameters`, obeyed by `images`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from offloop.demo.accept import Accepted

__all__ = [
    "ANIMATED",
    "FITS",
    "FORMATS",
    "GRAVITIES",
    "LOSSY",
    "MAX_SIDE",
    "Recipe",
]

#: output formats, and the media type of each; not every installation writes them all
FORMATS = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "avif": "image/avif",
    "gif": "image/gif",
    "tiff": "image/tiff",
    "jp2": "image/jp2",
    "qoi": "image/qoi",
    "heic": "image/heic",
    "jxl": "image/jxl",
}

#: formats that heed `quality`
LOSSY = ("jpeg", "webp", "avif", "jp2", "heic", "jxl")

#: formats that can hold an animation
ANIMATED = ("webp", "gif", "png", "avif")

FITS = ("inside", "outside", "contain", "cover", "fill")

#: what stays in view when "cover" cuts: where it lies, as shares of what is cut off
GRAVITIES = {
    "center": (0.5, 0.5),
    "north": (0.5, 0.0),
    "northeast": (1.0, 0.0),
    "east": (1.0, 0.5),
    "southeast": (1.0, 1.0),
    "south": (0.5, 1.0),
    "southwest": (0.0, 1.0),
    "west": (0.0, 0.5),
    "northwest": (0.0, 0.0),
}

#: the largest width or height that can be asked for
MAX_SIDE = 8192


@dataclass(frozen=True, slots=True)
class Recipe:
    """What to make of an image, in the order in which it is done.

    The image is turned upright by its EXIF orientation before anything else, so that
    all sizes and places are those that people see.

    Attributes:
        rotate: degrees clockwise: 0, 90, 180 or 270.
        flip: exchange top and bottom, after `rotate`.
        flop: exchange left and right, after `rotate`.
        crop: the part that is used: left, top, width and height in pixels.
        width, height: wanted size; None: follows from the other, or from the source.
        fit: how the image is fitted into width and height, in the words of CSS:
            "inside" scales it until it fits; "outside" until it covers them; "contain"
            pads it, "cover" crops it, and "fill" distorts it to exactly that size.
        enlarge: let "inside", "outside" and "contain" scale above the size it has.
        gravity: what "cover" keeps in view: a name of `GRAVITIES`, or "attention" for
            the part with the most detail.
        grayscale: drop the colours.
        blur: radius in pixels of the result; 0: none.
        sharpen: strength; 0: none, 1: usual.
        background: colour to put behind transparent parts and padding; None: padding is
            transparent or white, and transparent parts stay so if the format can.
        icc: "srgb" converts colours to sRGB; "keep" leaves them, with their profile.
        format: a name of `FORMATS`; None: the best one of `accepted`.
        accepted: formats to choose from when `format` is None; None: all.
        quality: from 1 to 100; None: the format's default. Lossless formats ignore it.
        max_bytes: lower the quality until the file is not larger; None: any size.
        lossless: keep every pixel, where the format has the choice (WebP, AVIF, JPEG
            2000, JPEG XL).
        progressive: let a JPEG appear at once and get sharper.
        subsampling: resolution of the colours in JPEG and AVIF: "4:4:4", "4:2:2" or
            "4:2:0".
        speed: effort of AVIF: 0 is slow and small, 10 quick.
        method: effort of WebP: 0 is quick, 6 slow and small.
        frames: frames of an animation to keep.
        strip: drop EXIF data, but for author and copyright. (Comments and XMP always
            go.)
        measure: compare the result with what was encoded.
        before: steps to be taken first, each with its own turning, crop and size.
    """

    format: str | None = None
    quality: int | None = None
    width: int | None = None
    height: int | None = None
    fit: str = "inside"
    enlarge: bool = False
    crop: tuple[int, int, int, int] | None = None
    gravity: str = "center"
    rotate: int = 0
    flip: bool = False
    flop: bool = False
    grayscale: bool = False
    blur: float = 0.0
    sharpen: float = 0.0
    background: tuple[int, int, int] | None = None
    strip: bool = True
    icc: str = "srgb"
    progressive: bool = True
    lossless: bool = False
    speed: int = 8
    method: int = 4
    subsampling: str = "4:2:0"
    max_bytes: int | None = None
    frames: int = 1
    measure: bool = False
    accepted: Accepted | None = None
    before: tuple[Recipe, ...] = ()

    @property
    def steps(self) -> tuple[Recipe, ...]:
        """All steps in order; this recipe is the last one."""
        return (*self.before, self)
