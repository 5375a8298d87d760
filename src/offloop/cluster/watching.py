"""Notices that source files have changed, for development.

It looks at their times of change now and then, in a thread: a tree of some thousand
files takes some milliseconds.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Seconds between two looks.
_PERIOD = 0.3

_SUFFIX = ".py"

# Folders that hold no source of the application's.
_OTHERS = ("__pycache__", "node_modules", "site-packages")


def times_of_change(folder: str) -> dict[str, int]:
    """Return when each source file below a folder was changed, in nanoseconds."""
    found: dict[str, int] = {}
    for path, folders, files in os.walk(folder):
        folders[:] = [
            name for name in folders if name not in _OTHERS and name[0] != "."
        ]
        for name in files:
            if name.endswith(_SUFFIX):
                file = os.path.join(path, name)
                try:
                    found[file] = os.stat(file).st_mtime_ns
                except OSError:  # it has just gone
                    continue
    return found


async def watch(
    folder: str, known: dict[str, int], act: Callable[[], Awaitable[None]]
) -> None:
    """Act after each change below a folder, until cancelled.

    Several changes that come together count as one: it acts when a look finds the same
    as the one before.

    Args:
        folder: to look at, with all below it.
        known: its times of change before anybody had read the files.
        act: what to do; nothing is looked at meanwhile.
    """
    acted = seen = known
    while True:
        await asyncio.sleep(_PERIOD)
        before, seen = seen, await asyncio.to_thread(times_of_change, folder)
        if seen == before and seen != acted:
            acted = seen
            await act()
