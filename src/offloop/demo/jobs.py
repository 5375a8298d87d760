"""The work, as the server names it.

The server may not import the image library: it would cost memory and start-up time, and
a picture could then be opened where it must not be. These functions are thin, and
import the heavy part where they run, in a worker, which has it loaded: `PRELOAD`. Their
results are at home here too: whoever unpickles one imports the module that defines it.
"""

from __future__ import annotations

import os
import signal
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from offloop.demo.geometry import Size
    from offloop.demo.recipe import Recipe

__all__ = [
    "PRELOAD",
    "SAMPLES",
    "Abilities",
    "Encoded",
    "abilities",
    "describe",
    "die",
    "draw",
    "encode",
    "encode_by_vips",
]

#: modules that a worker should have from its birth
PRELOAD = ("offloop.demo.images", "offloop.demo.samples")

#: names of the pictures that `draw` knows
SAMPLES = ("photo", "graphic", "animation")


class Encoded(NamedTuple):
    """A finished image, and how it came about.

    Attributes:
        data: the file.
        format: a name of `recipe.FORMATS`.
        width, height: its size.
        source: width and height of what came in, turned upright.
        quality: what it was encoded with; None: the format has no such thing.
        frames: how many it has.
        decode, resize, encode: seconds that each step took.
        pid: process that made it.
        likeness: PSNR in decibels and SSIM, if it was to be measured.
        origin: Pillow's name of the format that came in.
    """

    data: bytes
    format: str
    width: int
    height: int
    source: Size
    quality: int | None
    frames: int
    decode: float
    resize: float
    encode: float
    pid: int
    likeness: tuple[float, float] | None = None
    origin: str = ""


class Abilities(NamedTuple):
    """What the workers' installation can do.

    Attributes:
        writes: names of the formats that it can write.
        versions: of the libraries that encode, by name. Results depend on them.
        pid: process that says so.
    """

    writes: tuple[str, ...]
    versions: dict[str, str]
    pid: int


def encode(data: bytes | bytearray, recipe: Recipe, max_pixels: int) -> Encoded:
    """Make of an image file what the recipe says; see `images.encode`."""
    from offloop.demo import images

    return images.encode(data, recipe, max_pixels)


def encode_by_vips(data: bytes | bytearray, recipe: Recipe, max_pixels: int) -> Encoded:
    """Do as `encode`, with libvips where it can do what the recipe says."""
    from offloop.demo import vips

    return vips.encode(data, recipe, max_pixels)


def draw(name: str, recipe: Recipe, max_pixels: int) -> Encoded:
    """Draw a sample picture, and make of it what the recipe says."""
    from offloop.demo import images, samples

    started = perf_counter()
    return images.render(samples.draw(name), recipe, max_pixels, started)


def describe(data: bytes | bytearray, max_pixels: int) -> dict[str, Any]:
    """Return what the headers of an image file say; see `source.Summary`."""
    from offloop.demo import source

    return source.describe(data, max_pixels)._asdict()


def abilities(codec: str = "pillow") -> Abilities:
    """Return what this worker's installation can do.

    Args:
        codec: "pillow" or "vips".
    """
    from offloop.demo import writers

    versions = writers.versions()
    if codec == "vips":
        from offloop.demo import vips

        versions["libvips"] = vips.version()
    return Abilities(writers.writable(), versions, os.getpid())


def die() -> None:
    """End this worker as a crash of a decoder would."""
    os.kill(os.getpid(), signal.SIGKILL)
