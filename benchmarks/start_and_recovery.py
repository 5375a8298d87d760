"""From nothing to the first result, and from a kill to the replacement.

    python benchmarks/start_and_recovery.py [--quick]

The start is measured in fresh interpreters, from `Pool()` to the first result with two
workers, beside `ProcessPoolExecutor`. The recovery is the time from the SIGKILL of a
busy worker until its replacement is ready, on a loop that only waits. Exits with 1 if
offloop misses what it promises: 350 ms and 20 ms (medians).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time

from offloop import Pool

MAX_START = 0.35
MAX_RECOVERY = 0.02

START_OFFLOOP = """
import asyncio, time
from offloop import Pool
async def main():
    began = time.perf_counter()
    async with Pool(2) as pool:
        await pool.run(pow, 2, 2)
        print(time.perf_counter() - began)
asyncio.run(main())
"""

START_EXECUTOR = """
import asyncio, time
from concurrent.futures import ProcessPoolExecutor
async def main():
    began = time.perf_counter()
    with ProcessPoolExecutor(2) as pool:
        await asyncio.get_running_loop().run_in_executor(pool, pow, 2, 2)
        print(time.perf_counter() - began)
asyncio.run(main())
"""


def start(program):
    """Return the seconds that a program in a fresh interpreter reports."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


async def recoveries(count):
    """Return the seconds from each kill of a busy worker to its replacement."""
    times = []
    async with Pool(1) as pool:
        for _ in range(count):
            victim = await pool.run(os.getpid)
            job = pool.submit(time.sleep, 60)
            await asyncio.sleep(0.05)
            began = time.perf_counter()
            os.kill(victim, signal.SIGKILL)
            await asyncio.gather(job, return_exceptions=True)
            await pool.ready()
            times.append(time.perf_counter() - began)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a third of the work")
    repeats = 5 if parser.parse_args().quick else 15
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(start(START_OFFLOOP))
        theirs.append(start(START_EXECUTOR))
    cold = statistics.median(ours)
    print(f"first result, offloop:   {cold * 1e3:6.1f} ms")
    print(f"first result, executor:  {statistics.median(theirs) * 1e3:6.1f} ms")
    recovery = statistics.median(asyncio.run(recoveries(repeats * 2)))
    print(f"kill to replacement:     {recovery * 1e3:6.1f} ms")
    return cold > MAX_START or recovery > MAX_RECOVERY


if __name__ == "__main__":
    sys.exit(main())
