"""A million tiny items, and some of a second each, with nothing set.

    python benchmarks/map_items.py

`pool.map` finds out by itself how many items share a job. The tiny ones are given as a
list and by a generator, to a pool as it is by default, and to `multiprocessing.Pool`
with as many processes and its own chunks; the median of three rounds counts, in which
all take turns. Then items of a second: each must be a job of its own.

Exits with 1 if fewer than a million items a second come back, or if long ones share a
job.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import statistics
import sys
import time

from offloop import Pool, current_job

ITEMS = 1_000_000
ROUNDS = 3
MIN_RATE = 1_000_000
LONG_ITEMS = 4
LONG = 1.0


def double(number):
    return 2 * number


def job_of_a_long_one(_):
    time.sleep(LONG)
    return current_job().id


async def rate(pool, items):
    """Return the items a second of one map."""
    began = time.perf_counter()
    total = 0
    async for result in pool.map(double, items):
        total += result
    assert total == ITEMS * (ITEMS - 1)
    return ITEMS / (time.perf_counter() - began)


def rate_of_other(pool):
    began = time.perf_counter()
    assert sum(pool.map(double, range(ITEMS))) == ITEMS * (ITEMS - 1)
    return ITEMS / (time.perf_counter() - began)


async def measure():
    """Return the rates by what was measured, and the jobs of the long items."""
    rates = {"list": [], "generator": [], "multiprocessing.Pool": []}
    async with Pool() as pool:
        await pool.ready()
        workers = pool.stats().workers
        context = multiprocessing.get_context("forkserver")
        with context.Pool(workers) as other:
            for _ in range(ROUNDS):
                rates["list"].append(await rate(pool, list(range(ITEMS))))
                numbers = (number for number in range(ITEMS))
                rates["generator"].append(await rate(pool, numbers))
                rates["multiprocessing.Pool"].append(rate_of_other(other))
        jobs = [job async for job in pool.map(job_of_a_long_one, range(LONG_ITEMS))]
    return workers, {name: statistics.median(all) for name, all in rates.items()}, jobs


def main():
    workers, rates, jobs = asyncio.run(measure())
    print(f"{ITEMS:,} tiny items, workers: {workers}")
    for name, each in rates.items():
        print(f"{name:>22}  {each:>12,.0f} items/s")
    print(f"{LONG_ITEMS} items of {LONG:g} s were {len(set(jobs))} jobs")
    slow = min(rates["list"], rates["generator"]) < MIN_RATE
    return slow or len(set(jobs)) < LONG_ITEMS


if __name__ == "__main__":
    sys.exit(main())
