"""Short jobs among long ones of the same function: do they wait behind them?

    python benchmarks/mixed_load.py

95 % of the jobs take 0.1 ms and 5 % take 200 ms, and nobody can tell which is which
before. With two workers, the median of the short ones is compared with the same load
when a worker never holds more than one job, in turn. Then short ones alone, 64 in
flight, of a function that never was long and of the one that was.

Exits with 1 if the median is worse by more than a twentieth, which is noise, or if the
function that was long once is slower afterwards by more than a tenth.
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
MAX_RATIO = 1.05

ALONE = 40_000
IN_FLIGHT = 64
MIN_SHARE = 0.9


def work(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def brief(seconds: float) -> None:
    """Do the same, and never be asked to be long."""
    work(seconds)


async def one(pool, seconds):
    began = time.perf_counter()
    await pool.run(work, seconds)
    return time.perf_counter() - began


async def mixed(pool, lengths):
    """Return the latencies of the short ones."""
    for _ in range(50):
        await pool.run(work, 1e-4)
    going = []
    for seconds in lengths:
        going.append((seconds, asyncio.create_task(one(pool, seconds))))
        await asyncio.sleep(GAP)
    times = [await task for seconds, task in going if seconds < 0.1]
    await asyncio.gather(*(task for _, task in going))
    return times


async def alone(pool, function):
    """Return how many jobs end in a second that do nothing and are all short."""
    left = ALONE

    async def caller():
        nonlocal left
        while left > 0:
            left -= 1
            await pool.run(function, 0.0)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return ALONE / (time.perf_counter() - began)


async def measure(lengths):
    """Return the latencies of the short ones, and jobs a second of both functions."""
    async with Pool(2) as pool:
        await pool.ready()
        times = await mixed(pool, lengths)
        rates = []
        for function in (brief, work):
            await alone(pool, function)  # until it is known to be short
            rates.append(await alone(pool, function))
        return times, rates


def main():
    dice = random.Random(1)
    lengths = [0.2 if dice.random() < 0.05 else 1e-4 for _ in range(JOBS)]
    names = "credit as measured", "credit 1"
    latencies, rates = {name: [] for name in names}, {name: [] for name in names}
    slots = local.status.SLOTS
    for _ in range(ROUNDS):
        for name in names:
            local.status.SLOTS = 1 if name == "credit 1" else slots
            times, both = asyncio.run(measure(lengths))
            latencies[name] += times
            rates[name].append(both)
    local.status.SLOTS = slots
    medians = [statistics.median(latencies[name]) for name in names]
    for name, median in zip(names, medians, strict=True):
        brief_rate, work_rate = (
            statistics.median(r) for r in zip(*rates[name], strict=True)
        )
        print(f"{name:20} median of short jobs {median * 1e3:.3f} ms")
        print(f"{'':20} alone {brief_rate:,.0f}/s, after long ones {work_rate:,.0f}/s")
        if name == names[0]:
            share = work_rate / brief_rate
    return medians[0] > medians[1] * MAX_RATIO or share < MIN_SHARE


if __name__ == "__main__":
    sys.exit(main())
