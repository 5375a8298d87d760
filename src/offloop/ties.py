"""How a process is tied to the one that started it, so that it does not outlive it.

It imports nothing heavy: a forkserver and its workers are tied too.
"""

from __future__ import annotations

import contextlib
import os
import sys

_PR_SET_PDEATHSIG = 1


def open_parent(parent: int) -> int | None:
    """Return a descriptor that is readable once the parent has ended, if any can be.

    It may be of another process with the same number: compare the parent afterwards.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    with contextlib.suppress(ProcessLookupError):
        return os.pidfd_open(parent)
    return None


def tie_to_parent(parent: int, signum: int) -> bool:
    """Ask the kernel to send `signum` to this process when its parent ends.

    To the kernel the parent is the thread that started this process.

    Returns:
        False if the parent has ended already, which nobody would tell any more.
    """
    if sys.platform == "linux":
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signum, 0, 0, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    return os.getppid() == parent
