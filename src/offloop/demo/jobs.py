"""The work, as the server names it.

The server may not import the image library: it would cost memory and start-up time, and
a picture could then be opened where it must not be. These functions are thin, and
import the heavy part where they run, in a worker, which has it loaded: `PRELOAD`. Their
result is at home here too: whoever unpickles it imports the module that defines it.
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from offloop.demo.geometry import Size
    from offloop.demo.recipe import Recipe

__all__ = ["PRELOAD", "SAMPLES", "Encoded", "draw", "encode"]

#: modules that a worker should have from its birth
PRELOAD = ("offloop.demo.images", "offloop.demo.samples")

#: names of the pictures that `draw` knows
SAMPLES = ("photo", "graphic")


class Encoded(NamedTuple):
    """A finished image, and how it came about.

    Attributes:
        data: the file.
        format: a name of `recipe.FORMATS`.
        width, height: its size.
        source: width and height of what came in, turned upright.
        decode, resize, encode: seconds that each step took.
    """

    data: bytes
    format: str
    width: int
    height: int
    source: Size
    decode: float
    resize: float
    encode: float


def encode(data: bytes | bytearray, recipe: Recipe, max_pixels: int) -> Encoded:
    """Make of an image file what the recipe says; see `images.encode`."""
    from offloop.demo import images

    return images.encode(data, recipe, max_pixels)


def draw(name: str, recipe: Recipe, max_pixels: int) -> Encoded:
    """Draw a sample picture, and make of it what the recipe says."""
    from offloop.demo import images, samples

    started = perf_counter()
    return images.render(samples.draw(name), recipe, max_pixels, started)
