"""Counting the frames of a GIF without decoding one.

The format has no count: a decoder has to go through all of them, which takes minutes
for a file made on purpose. Its blocks say how long they are, so it can be walked.
"""

from __future__ import annotations

__all__ = ["count_frames"]

_EXTENSION, _IMAGE = 0x21, 0x2C

# Of the screen descriptor, with the signature before it, and of a frame's descriptor.
_SCREEN, _FRAME = 13, 10


def count_frames(data: bytes | bytearray, most: int) -> int:
    """Return the number of frames that have begun, or `most` if there are more.

    Args:
        data: a file that begins as a GIF does; it may be cut off or damaged.
        most: where to stop counting.
    """
    if len(data) < _SCREEN:
        return 0
    place = _SCREEN + _table(data[10])
    end = len(data)
    frames = 0
    while place < end and frames < most:
        if data[place] == _IMAGE:
            if place + _FRAME > end:
                break
            frames += 1
            place += _FRAME + _table(data[place + _FRAME - 1]) + 1
        elif data[place] == _EXTENSION:
            place += 2
        else:
            # Decoders skip what they do not know, byte by byte, and so does this.
            place += 1
            continue
        while place < end and data[place]:
            place += data[place] + 1
        place += 1
    return frames


def _table(flags: int) -> int:
    """Return the length of the colour table that flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
