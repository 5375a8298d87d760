"""One copy of an array into memory that is warm.

python benchmarks/limits/memcpy.py
"""

from __future__ import annotations

from time import perf_counter

import numpy as np

NAME = "floor: one warm copy"
KB = 1024
SIZES = (4 * KB, 64 * KB, KB * KB, 16 * KB * KB, 128 * KB * KB)


def measure(case: str, seconds: float) -> dict:
    return {str(size): copy(size, seconds) for size in SIZES}


def copy(size: int, seconds: float) -> float:
    source, target = np.ones(size // 8), np.zeros(size // 8)
    times = []
    end = perf_counter() + seconds / len(SIZES)
    while len(times) < 5 or perf_counter() < end:
        began = perf_counter()
        np.copyto(target, source)
        times.append(perf_counter() - began)
    return sorted(times)[len(times) // 2]


if __name__ == "__main__":
    print(measure("array-in", 1.0))
