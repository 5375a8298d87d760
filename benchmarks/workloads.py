"""What workers run: importable by every contender, and importing next to nothing.

Those that need numpy are in `payload_jobs`.
"""

from __future__ import annotations

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


def loop_for_ever() -> None:
    while True:
        pass
