"""What a call costs through a shared pool, beside a private one, in turns.

    python -m benchmarks.shared_pool

Starts a coordinator with one worker. Each round measures both pools; the medians of the
rounds are printed with their ratio.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time

from offloop import Pool

ROUNDS = 5
CALLS = 400
IN_FLIGHT = 64
LARGE = bytes(16 << 20)


async def one_at_a_time(pool):
    begin = time.perf_counter()
    for _ in range(CALLS):
        await pool.run(int)
    return (time.perf_counter() - begin) / CALLS * 1e6


async def many_in_flight(pool):
    async def caller():
        for _ in range(CALLS // 4):
            await pool.run(int)

    begin = time.perf_counter()
    await asyncio.gather(*[caller() for _ in range(IN_FLIGHT)])
    return (time.perf_counter() - begin) / (IN_FLIGHT * CALLS // 4) * 1e6


async def large(pool):
    begin = time.perf_counter()
    for _ in range(10):
        await pool.run(len, LARGE)
    return (time.perf_counter() - begin) / 10 * 1e6


async def measure():
    """Print the table."""
    cases = (one_at_a_time, many_in_flight, large)
    figures = {}
    async with Pool(1) as private, Pool(engine="shared") as shared:
        for pool in (private, shared):
            await pool.ready()
        for _ in range(ROUNDS):
            for case in cases:
                for name, pool in (("private", private), ("shared", shared)):
                    await case(pool)  # warm
                    took = await case(pool)
                    figures.setdefault((case, name), []).append(took)
    print(f"{'µs a call':<16}{'private':>10}{'shared':>10}{'ratio':>8}")
    for case in cases:
        mine = statistics.median(figures[case, "private"])
        ours = statistics.median(figures[case, "shared"])
        print(f"{case.__name__:<16}{mine:>10.0f}{ours:>10.0f}{ours / mine:>8.2f}")


def main():
    """Run a coordinator for as long as the measurement lasts."""
    with tempfile.TemporaryDirectory(prefix="b") as folder:
        os.environ["OFFLOOP_RUNTIME_DIR"] = folder
        command = [sys.executable, "-m", "offloop", "serve", "--compute", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as coordinator:
            try:
                coordinator.stdout.readline()
                asyncio.run(measure())
            finally:
                coordinator.terminate()


if __name__ == "__main__":
    main()
