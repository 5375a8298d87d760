"""From nothing to the first result, and from a kill to the next one.

    python benchmarks/start_and_recovery.py [--quick]

The start is measured in fresh interpreters, from `Pool()` to the first result, beside
`ProcessPoolExecutor`. The recovery is the time from the SIGKILL of a busy worker until
its replacement has answered, on a loop that only waits. Besides: the first result of
an elastic pool that has no worker at that moment, and a job in a process of its own
(`isolation="process"`), one after the other, with and without the sandbox. Exits with 1
if offloop misses what it promises: 350 ms for the first, 20 ms for all others, as
medians.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from time import perf_counter

import workloads
from cases import recovery, start
from harness.alone import compare
from offloop import Pool

MAX_START = 0.35
MAX_RECOVERY = 0.02


async def from_nobody(times):
    """Return the seconds from a call to its result where no worker is, each time."""
    took = []
    async with Pool(2, min_workers=0, idle_timeout=0.02) as pool:
        for _ in range(times):
            while pool.stats().workers:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0.01)
            took.append(await timed(pool))
    return statistics.median(took)


async def apart(times, sandbox):
    """Return the seconds from a call to its result, in a process of its own."""
    async with Pool(2, isolation="process", sandbox=sandbox) as pool:
        await pool.ready()
        return statistics.median([await timed(pool) for _ in range(times)])


async def timed(pool):
    began = perf_counter()
    await pool.run(workloads.nothing, 1)
    return perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a third of the work")
    rounds = 5 if parser.parse_args().quick else 15
    _, cold, theirs, _ = compare(start, "ProcessPoolExecutor", rounds)["first"]
    arguments = recovery.CASES[0].arguments
    _, again, *_ = compare(recovery, None, rounds, **arguments)["next"]
    print(f"first result, offloop:   {cold * 1e3:6.1f} ms")
    print(f"first result, executor:  {theirs * 1e3:6.1f} ms")
    print(f"kill to next result:     {again * 1e3:6.1f} ms")
    others = {
        "no worker to a result": from_nobody(2 * rounds),
        "in a process of its own": apart(20 * rounds, False),
        "in a sandbox of its own": apart(20 * rounds, True),
    }
    medians = {title: asyncio.run(measuring) for title, measuring in others.items()}
    for title, seconds in medians.items():
        print(f"{title + ':':25}{seconds * 1e3:6.1f} ms")
    return cold > MAX_START or max(again, *medians.values()) > MAX_RECOVERY


if __name__ == "__main__":
    sys.exit(main())
