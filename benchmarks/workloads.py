"""What workers run: importable by every contender, and importing next to nothing.

Those that need numpy are in `payload_jobs`.
"""

from __future__ import annotations

import os
import time


def nothing(value: int) -> int:
    return value


def double(value: int) -> int:
    return value * 2


def burn(seconds: float) -> float:
    """Use the processor for so long, whatever else it does meanwhile."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


def wait(seconds: float) -> None:
    time.sleep(seconds)


def wait_once(note: str) -> None:
    """Say which process this is, and wait; when run again, after a crash, return.

    Args:
        note: a FIFO, which tells the reader and is gone then.
    """
    if os.path.exists(note):
        with open(note, "w") as file:
            file.write(str(os.getpid()))
        os.unlink(note)
        time.sleep(30)


def loop(seconds: float) -> None:
    """Keep the interpreter busy for so long, and listen to nobody."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def spin(turns: int) -> None:
    """Do so much work that nothing else can do meanwhile: plain Python code."""
    for _ in range(turns):
        pass
