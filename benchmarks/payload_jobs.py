"""What the workers of the payload benchmarks run: importable by every contender.

A job that is given a payload returns how long its own work took, so that what the
payload costs on its way can be told from it.
"""

from __future__ import annotations

import hashlib
import io
import zlib
from time import perf_counter

import numpy as np

_made: dict[int, np.ndarray] = {}


def total(array: np.ndarray) -> float:
    """Add an array up; returns the seconds that took."""
    began = perf_counter()
    array.sum()
    return perf_counter() - began


def measure(data: bytes) -> float:
    """Look at both ends of some bytes."""
    began = perf_counter()
    if data[0] != data[-1]:
        raise ValueError("these are not the bytes that were sent")
    return perf_counter() - began


def produce(size: int) -> np.ndarray:
    """Return an array of so many bytes, the same each time: making it costs nothing."""
    if size not in _made:
        _made.clear()
        _made[size] = np.ones(size // 8)
    return _made[size]


def produce_bytes(size: int) -> bytes:
    return b"x" * size


def count(items: list) -> int:
    return len(items)


def some_bytes(size: int) -> bytes:
    """Return so many bytes that look like neither noise nor nothing."""
    steps = np.random.default_rng(1).integers(-3, 4, size)
    return (np.cumsum(steps) % 256).astype(np.uint8).tobytes()


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def compress(data: bytes) -> int:
    return len(zlib.compress(data))


def webp(pixels: bytes) -> int:
    """Encode 800x600 pixels."""
    from PIL import Image

    file = io.BytesIO()
    Image.frombytes("RGB", (800, 600), pixels).save(file, "WEBP")
    return file.tell()
