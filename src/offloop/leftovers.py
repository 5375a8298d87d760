"""Knows which processes a worker has left behind, however far they went.

A process that a job starts can leave the worker's process group (setsid), and, forking
twice, its family. Two things hold on to it, both the kernel's (Linux):

- the forkserver is the parent of all below it whose own parent has gone
  (PR_SET_CHILD_SUBREAPER), and not of anybody else;
- each worker bears a mark that all it starts inherits, through fork, exec, setsid and
  an empty environment: a limit so high that it limits nothing (RLIMIT_RTTIME).

    mark    01 | brand of its forkserver, drawn at random, 40 bits | number, 22 bits

The forkserver alone reaps its children, so none of their numbers can become another
process's between its look and its kill. Only if somebody has killed the forkserver
itself does the parent look for what bears its brand (`end_branded`); it is not their
parent, and takes hold of each before it looks.
"""

from __future__ import annotations

import contextlib
import os
import sys

_PR_SET_CHILD_SUBREAPER = 36

# Microseconds that no process lives to see; a mark is what is above it.
_BASE = 1 << 62
_BRAND_BYTES = 5
_NUMBER_BITS = 22

# Who starts processes faster than they are killed is not chased for ever.
_ROUNDS = 100

# Milliseconds that a killed process gets to end before the next round.
_PATIENCE_MS = 1000


def draw_brand() -> int:
    """Return a number that no other forkserver has."""
    return int.from_bytes(os.urandom(_BRAND_BYTES), "big")


def make_mark(brand: int, number: int) -> int:
    """Return the mark of a worker; one of so many numbers, which come again."""
    return brand << _NUMBER_BITS | number % (1 << _NUMBER_BITS)


def adopt() -> bool:
    """Make this process the parent of orphans below it; False where that cannot be."""
    if sys.platform != "linux" or not os.path.exists(_children_file()):
        return False
    import ctypes

    code: int = ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return code == 0


def bear(mark: int) -> None:
    """Mark this process, and all that it will start."""
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
        if hard == resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_RTTIME, (_BASE + mark, hard))


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


def end_branded(brand: int) -> None:
    """Kill all processes with a mark of that brand, whoever their parent is.

    Takes milliseconds, so it is nothing for an event loop's thread.
    """
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return
    for _ in range(_ROUNDS):
        # All of them are killed before the first is waited for.
        killed = [one for pid in _everybody(brand) for one in _kill(pid, brand)]
        for descriptor in killed:
            _has_ended(descriptor, _PATIENCE_MS)
            os.close(descriptor)
        if not killed:
            break


def _everybody(brand: int) -> list[int]:
    """Return the numbers of all processes that bear this brand."""
    numbers = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in numbers if _has_brand(pid, brand)]


def _has_brand(pid: int, brand: int) -> bool:
    mark = mark_of(pid)
    return mark is not None and mark >> _NUMBER_BITS == brand


def _kill(pid: int, brand: int) -> list[int]:
    """Kill a process if it bears the brand; returns a descriptor of it, or nothing.

    The descriptor is opened first: a process that lives under its number after the mark
    was seen is the one that bears it.
    """
    import signal

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return []
    if _has_brand(pid, brand) and not _has_ended(descriptor, 0):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            return [descriptor]
    os.close(descriptor)
    return []


def _has_ended(descriptor: int, patience: int) -> bool:
    """Tell whether a process ends within so many milliseconds, or has ended."""
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(patience))


def _children_file() -> str:
    return f"/proc/self/task/{os.getpid()}/children"
