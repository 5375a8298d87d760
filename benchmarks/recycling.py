"""A job that leaks 5 MB a call, a thousand times, with workers that are replaced.

    python benchmarks/recycling.py [--calls N] [--rounds R]

Two workers; one, two and eight calls in flight. Each round runs the calls without
recycling and with max_rss=150 MB, in turns. Prints how much the fullest worker held and
the 99th percentile of the calls' latency; exits with 1 if a call failed, a worker held
more than its limit and one job, or the percentile (the median of the rounds) is more
than twice that without recycling.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time

from offloop import Pool, Recycle

MB = 1_000_000
LEAK = 5 * MB
LIMIT = 150 * MB
MAX_RATIO = 2.0

_kept = []


def leak(size):
    """Keep so many bytes for good; returns what the process holds then."""
    _kept.append(bytearray(b"x") * size)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def measure(calls, in_flight, recycle):
    """Return the seconds of each call, what workers held at most, and the figures."""
    times, held = [], []
    left = iter(range(calls))
    async with Pool(2, recycle=recycle) as pool:
        await pool.ready()
        await asyncio.gather(*(pool.run(len, "warm") for _ in range(4)))

        async def caller():
            for _ in left:
                began = time.perf_counter()
                held.append(await pool.run(leak, LEAK))
                times.append(time.perf_counter() - began)

        await asyncio.gather(*(caller() for _ in range(in_flight)))
        stats = pool.stats()
    return sorted(times), max(held), stats


def at(times, share):
    return times[min(int(len(times) * share), len(times) - 1)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    recycle = Recycle(max_rss=LIMIT)
    good = True
    for in_flight in (1, 2, 8):
        p99s, ratios = [], []
        for _ in range(given.rounds):
            plain, *_ = asyncio.run(measure(given.calls, in_flight, None))
            times, held, stats = asyncio.run(measure(given.calls, in_flight, recycle))
            p99s.append((at(times, 0.99) * 1e3, at(plain, 0.99) * 1e3))
            ratios.append(p99s[-1][0] / p99s[-1][1])
            failed = stats.failed + stats.lost + given.calls + 4 - stats.completed
            good = good and not failed and held <= LIMIT + 1.2 * LEAK
            print(
                f"{in_flight} in flight: p50 {at(times, 0.5) * 1e3:.2f} ms "
                f"(without recycling {at(plain, 0.5) * 1e3:.2f}), "
                f"p99 {at(times, 0.99) * 1e3:.2f} ({at(plain, 0.99) * 1e3:.2f}), "
                f"max {times[-1] * 1e3:.1f} ({plain[-1] * 1e3:.1f}); "
                f"{failed} failed, {held / MB:.0f} MB held at most, "
                f"{sum(stats.exits.values())} workers replaced"
            )
        ratio = statistics.median(ratios)
        good = good and ratio <= MAX_RATIO
        recycled, plain = (statistics.median(one) for one in zip(*p99s, strict=True))
        print(
            f"{in_flight} in flight: p99 with recycling {recycled:.2f} ms, without "
            f"{plain:.2f} ms, {ratio:.2f} times (medians of {given.rounds} rounds)\n"
        )
    print("all within limits" if good else "NOT within limits")
    return not good


if __name__ == "__main__":
    sys.exit(main())
