"""Knows which processes a worker has left behind, however far they went.

A process that a job starts can leave the worker's process group (setsid), and, forking
twice, its family. Two things hold on to it, both the kernel's (Linux):

- the forkserver is the parent of all below it whose own parent has gone
  (PR_SET_CHILD_SUBREAPER), and not of anybody else;
- each worker bears a mark that all it starts inherits, through fork, exec, setsid and
  an empty environment: a limit so high that it limits nothing (RLIMIT_RTTIME).

The forkserver alone reaps its children, so none of their numbers can become another
process's between a look and a kill. This module looks and marks; it never kills.
"""

from __future__ import annotations

import os
import sys

_PR_SET_CHILD_SUBREAPER = 36

# Microseconds that no process lives to see; a worker's mark is what is above it.
_BASE = 1 << 62


def adopt() -> bool:
    """Make this process the parent of orphans below it; False where that cannot be."""
    if sys.platform != "linux" or not os.path.exists(_children_file()):
        return False
    import ctypes

    code: int = ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return code == 0


def mark(number: int) -> None:
    """Mark this process, and all that it will start."""
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
        if hard == resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_RTTIME, (_BASE + number, hard))


def mark_of(pid: int) -> int | None:
    """Return the mark of a process; None if it has none, or may not be looked at."""
    if sys.platform == "linux":
        import resource

        try:
            soft, _ = resource.prlimit(pid, resource.RLIMIT_RTTIME)
        except (ProcessLookupError, PermissionError):
            return None
        return soft - _BASE if soft >= _BASE else None
    return None


def children() -> list[int]:
    """Return the children of this process, which has one thread."""
    with open(_children_file()) as file:
        return [int(pid) for pid in file.read().split()]


def _children_file() -> str:
    return f"/proc/self/task/{os.getpid()}/children"
