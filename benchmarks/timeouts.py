"""Two hundred endless loops under `asyncio.timeout`, one after the other.

    python benchmarks/timeouts.py

Each must end at once when its 50 ms are over, and leave no process behind. Prints the
times; exits with 1 if the median is over 80 ms or a process is left.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path

from offloop import Pool

TIMES = 200
TIMEOUT = 0.05
MAX_MEDIAN = 0.08


def endless():
    while True:
        pass


async def measure():
    """Return the seconds that each call took."""
    times = []
    async with Pool(1) as pool:
        await pool.ready()
        for _ in range(TIMES):
            began = time.perf_counter()
            try:
                async with asyncio.timeout(TIMEOUT):
                    await pool.run(endless)
            except TimeoutError:
                times.append(time.perf_counter() - began)
    return times


def children():
    """Return the numbers of this process's children, whichever thread started them."""
    files = Path("/proc/self/task").glob("*/children")
    return [number for file in files for number in file.read_text().split()]


def main():
    times = asyncio.run(measure())
    median = statistics.median(times)
    left = children()
    print(f"{len(times)} calls that never end, each given {TIMEOUT * 1e3:.0f} ms")
    print(f"median {median * 1e3:.1f} ms, longest {max(times) * 1e3:.1f} ms")
    print(f"processes left: {len(left)}")
    return median > MAX_MEDIAN or bool(left) or len(times) < TIMES


if __name__ == "__main__":
    sys.exit(main())
