"""No-op jobs: offloop beside `ProcessPoolExecutor`, in one run.

    python benchmarks/against_executor.py [--quick]

Prints the median round trip of one job at a time with one worker, and the throughput
with 64 jobs in flight, for both pools in turn, several times, and the ratio of the
medians. Exits with 1 if offloop misses what it promises: 15 times the throughput, half
the round trip.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from offloop import Pool

IN_FLIGHT = 64
MIN_THROUGHPUT_RATIO = 15
MAX_ROUND_TRIP_RATIO = 0.5


def nothing(value: int) -> int:
    return value


async def round_trip(call, count):
    """Return the median seconds of one call after the other."""
    for value in range(200):
        await call(value)
    times = []
    for value in range(count):
        began = time.perf_counter()
        await call(value)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


async def throughput(call, count):
    """Return jobs a second with IN_FLIGHT callers that each await one at a time."""

    async def caller():
        for value in range(count // IN_FLIGHT):
            await call(value)

    began = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))
    return count / (time.perf_counter() - began)


async def measure_offloop(workers, measure, count):
    async with Pool(workers) as pool:
        await pool.ready()
        await throughput(lambda value: pool.run(nothing, value), 640)
        return await measure(lambda value: pool.run(nothing, value), count)


async def measure_executor(workers, measure, count):
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(workers) as executor:

        def call(value):
            return loop.run_in_executor(executor, nothing, value)

        await throughput(call, 640)
        return await measure(call, count)


def in_turn(measure, workers, ours_count, theirs_count, repeats):
    """Measure both, one after the other, and return the medians."""
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(asyncio.run(measure_offloop(workers, measure, ours_count)))
        theirs.append(asyncio.run(measure_executor(workers, measure, theirs_count)))
    return statistics.median(ours), statistics.median(theirs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the work")
    share = 5 if parser.parse_args().quick else 1
    repeats = 3 if share > 1 else 7
    ours, theirs = in_turn(round_trip, 1, 10_000 // share, 5_000 // share, repeats)
    trip = ours / theirs
    print(f"{'':24}{'offloop':>12}{'executor':>12}{'ratio':>8}")
    print(
        f"{'round trip, 1 worker':24}{ours * 1e6:9.0f} µs{theirs * 1e6:9.0f} µs"
        f"{trip:8.2f}"
    )
    flow = 0.0
    for workers in (1, 2):
        ours, theirs = in_turn(
            throughput, workers, 128_000 // share, 19_200 // share, repeats
        )
        flow = max(flow, ours / theirs)
        name = f"{IN_FLIGHT} in flight, {workers} workers"
        print(f"{name:24}{ours:10.0f}/s{theirs:10.0f}/s{ours / theirs:8.1f}")
    return trip > MAX_ROUND_TRIP_RATIO or flow < MIN_THROUGHPUT_RATIO


if __name__ == "__main__":
    sys.exit(main())
