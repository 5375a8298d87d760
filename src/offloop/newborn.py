"""What a process does first that has just been forked to be a worker.

It was a forkserver a moment ago, and has what a fork copies: signal handlers, random
numbers, a `__main__`. Nothing here knows of jobs or of the parent.
"""

from __future__ import annotations

import contextlib
import signal
import sys

__all__ = ["begin"]

# By how much more the kernel blames a worker for a lack of memory (of 1000 in all). Its
# parent is blamed for all shared memory that it looks at, half of all memory perhaps.
_OOM_SCORE = 800


def begin() -> None:
    """Leave behind what the forkserver was."""
    _reset_signals()
    _volunteer()
    _reseed()
    _forget_main()


def _reset_signals() -> None:
    """Undo what the forkserver set; Ctrl-C is the parent's to handle."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for signum in (signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


def _volunteer() -> None:
    """When memory ends, let the kernel kill a worker rather than what it works for."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
        score = min(int(file.read()) + _OOM_SCORE, 1000)
        file.seek(0)
        file.write(str(score))


def _reseed() -> None:
    """Give each worker random numbers of its own; `random` reseeds itself at a fork."""
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _forget_main() -> None:
    """Show user code an empty `__main__`, not the forkserver's.

    Functions of the user's `__main__` arrive by value; that module never runs here.
    """
    sys.modules["__main__"] = type(sys)("__main__")
    sys.argv[:] = [""]
