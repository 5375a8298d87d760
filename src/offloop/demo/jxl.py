"""The size of a JPEG XL image, read without its library.

The plugin decodes all pixels as soon as a file is opened, so what is too large has to
be known before. The size stands in the first bits of the codestream, which is the file
itself or lies in boxes of it.
"""

from __future__ import annotations

__all__ = ["size_of"]

_BARE = b"\xff\x0a"
_BOXED = b"\0\0\0\x0cJXL "

# Boxes before the image; beyond these a file is an attempt.
_MAX_BOXES = 64

# How many bits a length may have, by the two bits before it.
_BITS = (9, 13, 18, 30)

# Width for a height, by the three bits that say which.
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def size_of(data: bytes | bytearray) -> tuple[int, int] | None:
    """Return width and height as the file says; None if it does not say so.

    Args:
        data: a file of any kind; it may be cut off or damaged.
    """
    start = _codestream(data)
    if start is None or data[start : start + 2] != _BARE:
        return None
    # The size takes ten bytes at most. What is missing counts as zero: a file that is
    # cut off there is refused by the decoder.
    bits = _Bits(int.from_bytes(data[start + 2 : start + 14], "little"))
    small = bits.take(1)
    height = _length(bits, small)
    ratio = bits.take(3)
    if ratio:
        over, under = _RATIOS[ratio - 1]
        return height * over // under, height
    return _length(bits, small), height


def _codestream(data: bytes | bytearray) -> int | None:
    """Return where the codestream begins."""
    if data[:8] != _BOXED:
        return 0
    place = 0
    for _ in range(_MAX_BOXES):
        length, kind = (
            int.from_bytes(data[place : place + 4]),
            data[place + 4 : place + 8],
        )
        head = 8
        if length == 1:
            length, head = int.from_bytes(data[place + 8 : place + 16]), 16
        if kind == b"jxlc":
            return place + head
        if kind == b"jxlp":  # one part of several, after its number
            return place + head + 4
        if length < head:  # the last box, or nonsense
            return None
        place += length
    return None


def _length(bits: _Bits, small: int) -> int:
    if small:
        return 8 * (bits.take(5) + 1)
    return bits.take(_BITS[bits.take(2)]) + 1


class _Bits:
    """Bits from the lowest upwards, which is how the format counts them."""

    def __init__(self, value: int) -> None:
        self._value = value

    def take(self, count: int) -> int:
        value = self._value & ((1 << count) - 1)
        self._value >>= count
        return value
