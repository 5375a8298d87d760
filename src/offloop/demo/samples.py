"""Pictures to try the server with, drawn when asked for. Runs in workers only.

They are computed and not shipped: no binary in the package, no licence, and equal on
every machine because the noise has a fixed seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from offloop.demo.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["draw"]

_WIDTH, _HEIGHT = 1600, 1200
_HORIZON = 760

# A mountain range per line, far to near: height of its foot above the horizon line,
# height of its peaks, colour.
_RANGES = (
    (40, 330, (150, 140, 178)),
    (20, 250, (108, 104, 150)),
    (8, 150, (70, 74, 116)),
    (0, 84, (38, 46, 78)),
)

_Pixels = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def draw(name: str) -> Source:
    """Return a sample picture by its name in `jobs.SAMPLES`."""
    if name == "animation":
        frames = _animation()
        image, duration = next(frames)
        return Source(image, image.size, format="GIF", more=frames, duration=duration)
    paint, format = _PAINTERS[name]
    image = paint()
    return Source(image, image.size, format=format)


def _photo() -> Image.Image:
    """A lake at sunset: gradients, texture and grain, as in a photograph."""
    rng = np.random.default_rng(2024)
    sky = _sky(rng)
    for number, (foot, peaks, colour) in enumerate(_RANGES):
        _add_range(rng, sky, foot, peaks, colour, roughness=0.52 + 0.02 * number)
    picture = np.concatenate([sky, _lake(rng, sky)])
    picture += rng.normal(0, 5, (_HEIGHT, _WIDTH, 1))  # grain
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def _sky(rng: np.random.Generator) -> _Pixels:
    y = np.linspace(0, 1, _HORIZON, dtype=np.float32)[:, None]
    stops = (0.0, 0.45, 0.8, 1.0)
    colours = ((42, 62, 120), (142, 120, 170), (246, 168, 128), (255, 214, 150))
    bands = [np.interp(y, stops, band) for band in zip(*colours, strict=True)]
    sky = np.stack(bands, axis=-1).astype(np.float32).repeat(_WIDTH, axis=1)
    x = np.arange(_WIDTH, dtype=np.float32)[None, :]
    distance = np.hypot(x - 478, y * _HORIZON - 592)
    glow = 120 * np.exp(-distance / 190) + 160 * (47 - distance).clip(0, 1)
    clouds = _noise(rng, _HORIZON, _WIDTH, cells=(6, 2)) * (1 - (2 * y - 1) ** 2)
    sky += glow[..., None] * np.array((1.0, 0.86, 0.6), np.float32)
    sky += 70 * clouds[..., None] * np.array((1.0, 0.8, 0.75), np.float32)
    return sky


def _noise(
    rng: np.random.Generator, height: int, width: int, cells: tuple[int, int]
) -> _Pixels:
    """Return clouds around 0: noise of ever finer grain, added up.

    Args:
        cells: how many of the coarsest grains fit into the height and the width.
    """
    total = np.zeros((height, width), np.float32)
    for octave in range(6):
        down, across = (n * 2**octave + 1 for n in cells)
        grains = rng.normal(0, 0.5 ** (octave + 1), (down, across))
        layer = Image.fromarray(grains.astype(np.float32))
        total += np.asarray(layer.resize((width, height), Image.Resampling.BICUBIC))
    return total


def _add_range(
    rng: np.random.Generator,
    sky: _Pixels,
    foot: int,
    peaks: int,
    colour: tuple[int, int, int],
    roughness: float,
) -> None:
    """Paint a range of mountains over the sky; haze gathers at its foot."""
    ridge = _ridge(rng, roughness) * peaks + foot
    above = _HORIZON - np.arange(_HORIZON, dtype=np.float32)[:, None]
    # Soft by a pixel, or the ridge would be a staircase.
    cover = (ridge[None, :] - above).clip(0, 1)[..., None]
    haze = np.exp(-above / (0.6 * peaks))[..., None] * 0.55
    woods = _noise(rng, _HORIZON, _WIDTH, cells=(24, 40))[..., None]
    rock = np.array(colour, np.float32) + 14 * woods
    rock = rock * (1 - haze) + np.array((250, 196, 160), np.float32) * haze
    sky += (rock - sky) * cover


def _ridge(rng: np.random.Generator, roughness: float) -> _Pixels:
    """Return a skyline from 0 to 1 by midpoint displacement."""
    line = rng.random(3)
    spread = 0.5
    while len(line) < _WIDTH:
        middle = (line[1:] + line[:-1]) / 2 + rng.normal(0, spread / 2, len(line) - 1)
        woven = np.empty(2 * len(line) - 1)
        woven[::2], woven[1::2] = line, middle
        line, spread = woven, spread * roughness
    line = line[:_WIDTH] - line[:_WIDTH].min()
    return np.asarray(line / line.max(), np.float32)


def _lake(rng: np.random.Generator, sky: _Pixels) -> _Pixels:
    """Mirror the view in water whose ripples grow towards the viewer."""
    rows = _HEIGHT - _HORIZON
    depth = np.arange(rows, dtype=np.float32)[:, None]
    waves = _noise(rng, rows, _WIDTH, cells=(24, 3))
    y = _HORIZON - 1 - 1.5 * depth - waves * (2 + depth / 9)
    x = np.arange(_WIDTH)[None, :] + waves * (2 + depth / 20)
    at_y = y.clip(0, _HORIZON - 1).astype(np.intp)
    at_x = x.clip(0, _WIDTH - 1).astype(np.intp)
    water = sky[at_y, at_x] * (0.82 - 0.35 * depth[..., None] / rows)
    return (water + 9 * waves[..., None]).astype(np.float32)


def _graphic() -> Image.Image:
    """A chart on a transparent ground: flat colours and sharp edges."""
    scale = 3  # drawn larger and scaled down, which smooths the edges
    image = Image.new("RGBA", (1200 * scale, 800 * scale))
    pen = ImageDraw.Draw(image)
    pen.rounded_rectangle(
        [n * scale for n in (30, 30, 1170, 770)], 40 * scale, "#f7f8fc", "#c9cfe0", 6
    )
    colours = ("#3557d6", "#18a999", "#f2a541", "#e4572e", "#8d5fd3", "#2d7dd2")
    for number, colour in enumerate(colours):
        left, top = 120 + 165 * number, 640 - 90 * ((number * 5) % 7)
        box = [n * scale for n in (left, top - 40, left + 105, 690)]
        pen.rounded_rectangle(box, 16 * scale, colour)
    pen.line([n * scale for n in (90, 692, 1110, 692)], "#5a6378", 6 * scale)
    curve = [(172 + 165 * n, 560 - 80 * ((n * 3) % 5)) for n in range(6)]
    pen.line([(x * scale, y * scale) for x, y in curve], "#1d2433", 9 * scale, "curve")
    for x, y in curve:
        pen.circle((x * scale, y * scale), 17 * scale, "#ffffff", "#1d2433", 7 * scale)
    return image.resize((1200, 800), Image.Resampling.BOX)


def _animation() -> Iterator[tuple[Image.Image, int]]:
    """A few seconds of a clock: a ring that fills, and a dot that runs around it."""
    frames, side, scale = 36, 360, 2  # drawn larger and scaled down: smooth edges
    middle, radius = side * scale / 2, side * scale * 0.36
    ring = [middle - radius, middle - radius, middle + radius, middle + radius]
    for number in range(frames):
        image = Image.new("RGB", (side * scale, side * scale), "#1c1a26")
        pen = ImageDraw.Draw(image)
        turn = number / frames
        pen.ellipse(ring, outline="#322f42", width=24 * scale)
        pen.arc(ring, -90, 360 * turn - 90, fill="#938fff", width=24 * scale)
        angle = 2 * np.pi * turn - np.pi / 2
        reach = radius - 12 * scale
        at = (middle + reach * np.cos(angle), middle + reach * np.sin(angle))
        pen.circle(at, 17 * scale, "#f5a25a")
        yield image.resize((side, side), Image.Resampling.BOX), 50


# What paints each picture, and the format that suits it.
_PAINTERS = {"photo": (_photo, "JPEG"), "graphic": (_graphic, "PNG")}
