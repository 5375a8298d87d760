"""Short jobs among long ones of the same function: do they wait behind them?

    python benchmarks/mixed_load.py

95 % of the jobs take 0.1 ms and 5 % take 200 ms, and nobody can tell which is which
before. With two workers, the median of the short ones is compared with the same load
when a worker never holds more than one job, in turn. Exits with 1 if it is worse by
more than a fifth, which is noise.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time

from offloop import Pool
from offloop.engines import local

JOBS = 400
GAP = 0.012
ROUNDS = 3
MAX_RATIO = 1.2


def work(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


async def one(pool, seconds):
    began = time.perf_counter()
    await pool.run(work, seconds)
    return time.perf_counter() - began


async def measure(lengths):
    """Return the median latency of the short ones."""
    async with Pool(2) as pool:
        await pool.ready()
        for _ in range(50):
            await pool.run(work, 1e-4)
        going = []
        for seconds in lengths:
            going.append((seconds, asyncio.create_task(one(pool, seconds))))
            await asyncio.sleep(GAP)
        times = [await task for seconds, task in going if seconds < 0.1]
        await asyncio.gather(*(task for _, task in going))
    return statistics.median(times)


def main():
    dice = random.Random(1)
    lengths = [0.2 if dice.random() < 0.05 else 1e-4 for _ in range(JOBS)]
    medians = {"credit as measured": [], "credit 1": []}
    slots = local.status.SLOTS
    for _ in range(ROUNDS):
        for name, times in medians.items():
            local.status.SLOTS = 1 if name == "credit 1" else slots
            times.append(asyncio.run(measure(lengths)))
    local.status.SLOTS = slots
    ours, single = (statistics.median(times) for times in medians.values())
    for name, times in medians.items():
        print(f"{name:20} median of short jobs {statistics.median(times) * 1e3:.2f} ms")
    return ours > single * MAX_RATIO


if __name__ == "__main__":
    sys.exit(main())
