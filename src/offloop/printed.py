"""Keeps the last lines that a worker prints where its parent finds them.

    print, logging ──▶ sys.stdout ──▶ descriptor 1, as ever
                       sys.stderr         │
                                          └──▶ the status page

A process that is killed takes along what it was about to say of itself. So what it has
written through `sys.stdout` and `sys.stderr` is copied to its status page, line by
line. What C code writes to the descriptors by itself is not seen here.
"""

from __future__ import annotations

import io
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class _Copied(io.FileIO):
    """A descriptor; all that is written to it is also given to `keep`."""

    def __init__(self, descriptor: int, keep: Callable[[memoryview], None]) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._keep = keep

    def write(self, data: Any, /) -> int:
        written = super().write(data)
        if written:
            self._keep(memoryview(data).cast("B")[:written])
        return written


def keep_printed(keep: Callable[[memoryview], None]) -> None:
    """Give `keep` all bytes that are written to `sys.stdout` and `sys.stderr`."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        try:
            raw = _Copied(stream.fileno(), keep)
        except (AttributeError, OSError, ValueError):  # there is none, or it is closed
            continue
        copied = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=stream.encoding,
            errors=stream.errors,
            line_buffering=True,
        )
        setattr(sys, name, copied)
