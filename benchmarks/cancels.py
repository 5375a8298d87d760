"""Ten thousand jobs cancelled at once, and the next result.

    python benchmarks/cancels.py

Half of the jobs are awaited by tasks, half are held as jobs; two of them run endless
loops. Cancelling all takes less than 0.3 s, and a job that is submitted then is done at
once. Prints the times; exits with 1 if one is over its limit.
"""

from __future__ import annotations

import asyncio
import sys
import time

from offloop import Pool

JOBS = 10_000
MAX_CANCEL = 0.3
MAX_NEXT = 0.5  # the workers that run must be interrupted, and replaced


def endless():
    while True:
        pass


def nothing():
    pass


async def measure():
    """Return the seconds that the cancellations took, and then the next result."""
    async with Pool(2) as pool:
        await pool.ready()
        held = [pool.submit(endless) for _ in range(JOBS // 2)]
        tasks = [asyncio.create_task(pool.run(endless)) for _ in range(JOBS // 2)]
        await asyncio.sleep(0.1)
        began = time.perf_counter()
        for one in (*held, *tasks):
            one.cancel()
        await asyncio.wait([*held, *tasks])
        cancelled = time.perf_counter()
        await pool.run(nothing)
        return cancelled - began, time.perf_counter() - cancelled


def main():
    cancelling, following = asyncio.run(measure())
    print(f"{JOBS:,} jobs cancelled in {cancelling * 1e3:.0f} ms")
    print(f"the next result came {following * 1e3:.0f} ms later")
    return cancelling > MAX_CANCEL or following > MAX_NEXT


if __name__ == "__main__":
    sys.exit(main())
