"""How like the source a result looks, in two usual figures. Runs in workers only."""

from __future__ import annotations

import io
from math import inf, log10

import numpy as np
from PIL import Image

__all__ = ["compare"]

# The sides of the window in which SSIM looks at a time, and its two constants for
# 8 bits: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error
# visibility to structural similarity", IEEE Transactions on Image Processing 13 (2004).
_RADIUS = 3
_C1 = (0.01 * 255) ** 2
_C2 = (0.03 * 255) ** 2

# Figures are those of the brightness, which is what eyes look at first, in a copy of
# at most this side: good to two digits, and cheap.
_SIDE = 512

_Pixels = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def compare(wanted: Image.Image, data: bytes) -> tuple[float, float]:
    """Return PSNR in decibels and SSIM (1: equal) of an encoded image.

    Args:
        wanted: the pixels that were encoded.
        data: the file that they became.
    """
    with Image.open(io.BytesIO(data)) as result:
        ours, theirs = _brightness(wanted), _brightness(result)
    error = float(np.mean((ours - theirs) ** 2))
    psnr = inf if error == 0 else 10 * log10(255**2 / error)
    return psnr, _ssim(ours, theirs)


def _brightness(image: Image.Image) -> _Pixels:
    # Where nothing is seen, encoders write what they like.
    if image.has_transparency_data:
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    image = image.convert("L")
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX, None)
    return np.asarray(image, np.float32)


def _ssim(one: _Pixels, two: _Pixels) -> float:
    mean1, mean2 = _blurred(one), _blurred(two)
    spread1 = _blurred(one * one) - mean1**2
    spread2 = _blurred(two * two) - mean2**2
    common = _blurred(one * two) - mean1 * mean2
    likeness = (2 * mean1 * mean2 + _C1) * (2 * common + _C2)
    likeness /= (mean1**2 + mean2**2 + _C1) * (spread1 + spread2 + _C2)
    return float(likeness.mean())


def _blurred(pixels: _Pixels) -> _Pixels:
    """Return the mean of the window around each pixel, by running sums."""
    side = 2 * _RADIUS + 1
    padded = np.pad(pixels, _RADIUS, "edge").astype(np.float64)
    for axis in (0, 1):
        sums = np.cumsum(padded, axis)
        sums = np.insert(sums, 0, 0, axis)
        length = sums.shape[axis]
        ahead = np.take(sums, range(side, length), axis)
        padded = (ahead - np.take(sums, range(length - side), axis)) / side
    return padded.astype(np.float32)
