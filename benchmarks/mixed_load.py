"""Short jobs among long ones of the same function: do they wait behind them?

    python benchmarks/mixed_load.py

95 % of the jobs take 0.1 ms and 5 % take 200 ms, and nobody can tell which is which
before. With two workers, the median of the short ones is compared with the same load in
a second pool, whose workers never hold more than one job. Both pools live at the same
time and work in turn, a block of jobs each, and which one begins changes from block to
block; each round has new pools. What counts is the median of the rounds' ratios.

Then short ones alone, 64 in flight, of a function that never was long and of the one
that was.

Exits with 1 if the median is worse by more than a twentieth, which is noise, or if the
function that was long once is slower afterwards by more than a tenth.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from contextlib import AsyncExitStack

from offloop import Pool
from offloop.engines import local

ROUNDS = 7
BLOCKS = 4
JOBS = 80  # in a block
GAP = 0.012
MAX_RATIO = 1.05

ALONE = 20_000
IN_FLIGHT = 64
MIN_SHARE = 0.9

MEASURED, ONE = "credit as measured", "credit 1"


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


async def block(pool, lengths):
    """Return the latencies of the short ones."""
    going = []
    for seconds in lengths:
        going.append((seconds, asyncio.create_task(one(pool, seconds))))
        await asyncio.sleep(GAP)
    await asyncio.gather(*(task for _, task in going))
    return [task.result() for seconds, task in going if seconds < 0.1]


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


async def pools(stack):
    """Return a pool of each kind that knows the function as a short one."""
    made = {}
    slots = local.status.SLOTS
    for name in (MEASURED, ONE):
        local.status.SLOTS = 1 if name is ONE else slots
        made[name] = pool = await stack.enter_async_context(Pool(2))
        await pool.ready()
        for _ in range(50):
            await pool.run(work, 1e-4)
    local.status.SLOTS = slots
    return made


async def measure(dice):
    """Return the median latency in either pool, and jobs a second of both functions."""
    async with AsyncExitStack() as stack:
        made = await pools(stack)
        times = {name: [] for name in made}
        for number in range(BLOCKS):
            lengths = [1e-4] * (JOBS - JOBS // 20) + [0.2] * (JOBS // 20)
            dice.shuffle(lengths)
            for name in sorted(made, reverse=number % 2 == 1):
                times[name] += await block(made[name], lengths)
        rates = []
        for function in (brief, work):
            await alone(made[MEASURED], function)  # until it is known to be short
            rates.append(await alone(made[MEASURED], function))
        return {name: statistics.median(each) for name, each in times.items()}, rates


def main():
    dice = random.Random(1)
    rounds = [asyncio.run(measure(dice)) for _ in range(ROUNDS)]
    for name in (MEASURED, ONE):
        median = statistics.median(medians[name] for medians, _ in rounds)
        print(f"{name:20} median of short jobs {median * 1e3:.3f} ms")
    ratios = sorted(medians[MEASURED] / medians[ONE] for medians, _ in rounds)
    ratio = statistics.median(ratios)
    print(f"ratio {ratio:.3f}; of single rounds {ratios[0]:.3f} to {ratios[-1]:.3f}")
    before, after = (
        statistics.median(each)
        for each in zip(*(rates for _, rates in rounds), strict=True)
    )
    print(f"short jobs alone {before:,.0f}/s, after long ones {after:,.0f}/s")
    return ratio > MAX_RATIO or after / before < MIN_SHARE


if __name__ == "__main__":
    sys.exit(main())
