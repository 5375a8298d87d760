"""From a fork to the first byte of the child.

    python benchmarks/limits/fork.py

Of a small process; a large one takes longer, because its page tables are copied.
"""

from __future__ import annotations

import os
from time import perf_counter

NAME = "floor: fork"


def measure(case: str, seconds: float = 0.3) -> dict:
    times = sorted(fork() for _ in range(50))
    return {"first" if case == "start" else "next": times[25]}


def fork() -> float:
    reads, writes = os.pipe()
    began = perf_counter()
    if not (child := os.fork()):
        os.write(writes, b"x")
        os._exit(0)
    os.read(reads, 1)
    took = perf_counter() - began
    os.waitpid(child, 0)
    os.close(reads)
    os.close(writes)
    return took


if __name__ == "__main__":
    print(measure("start"))
