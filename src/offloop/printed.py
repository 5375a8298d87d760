"""Keeps the last lines that a worker prints where its parent finds them.

    print, logging ──▶ sys.stdout ──▶ descriptor 1, as ever
                       sys.stderr         │
                                          └──▶ the status page

A process that is killed takes along what it was about to say of itself. So what it has
written through `sys.stdout` and `sys.stderr` is copied to its status page, line by
line. What C code writes to the descriptors by itself is not seen here.

If the program wants to log what jobs print, lines go to it and not to the descriptors.
"""

from __future__ import annotations

import io
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


#: takes what is written to "stdout" or "stderr" instead of their descriptors; None:
#: nobody does
_taker: Callable[[str, memoryview], object] | None = None


class _Copied(io.FileIO):
    """A descriptor; all that is written to it is also given to `keep`."""

    def __init__(
        self, name: str, descriptor: int, keep: Callable[[memoryview], None]
    ) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._stream = name
        self._keep = keep

    def write(self, data: Any, /) -> int:
        if _taker is not None:
            view = memoryview(data).cast("B")
            self._keep(view)
            _taker(self._stream, view)
            return len(view)
        written = super().write(data)
        if written:
            self._keep(memoryview(data).cast("B")[:written])
        return written


def send_printed(take: Callable[[str, memoryview], object]) -> None:
    """Give `take` what is written from now on, by name of its stream."""
    global _taker
    _taker = take


def keep_printed(keep: Callable[[memoryview], None]) -> None:
    """Give `keep` all bytes that are written to `sys.stdout` and `sys.stderr`."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        try:
            raw = _Copied(name, stream.fileno(), keep)
        except (AttributeError, OSError, ValueError):  # there is none, or it is closed
            continue
        copied = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=True,
        )
        setattr(sys, name, copied)
