"""Every worker is killed, again and again, under a constant load: nothing is lost.

    python benchmarks/kills.py [--seconds S] [--every S] [--workers N]

64 calls are in flight, with retries=3. For half a minute nothing happens; then all
workers get SIGKILL once a second, for a minute. Done with calls that do nothing and
with calls that compute for a millisecond. Prints both throughputs; exits with 1 if a
call was lost, or had a wrong result, or the throughput under kills is less than 70 %
of that without.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time

from offloop import Pool
from offloop.telemetry.events import WorkerEnded

IN_FLIGHT = 64
LEAST_SHARE = 0.7


def nothing(number):
    return number


def compute(number):
    end = time.perf_counter() + 0.001
    while time.perf_counter() < end:
        pass
    return number


class Load:
    """Calls that are always in flight."""

    def __init__(self, pool, function):
        self.pool = pool
        self.function = function
        self.done = 0
        self.wrong = 0
        self.number = 0

    async def call_until(self, end):
        run = self.pool.options(retries=3).run
        while time.monotonic() < end:
            self.number += 1
            number = self.number
            try:
                self.wrong += await run(self.function, number) != number
            except Exception as error:
                self.wrong += 1
                print(f"call {number}: {error!r}", file=sys.stderr)
            self.done += 1

    async def throughput(self, seconds):
        began, done = time.monotonic(), self.done
        end = began + seconds
        await asyncio.gather(*(self.call_until(end) for _ in range(IN_FLIGHT)))
        return (self.done - done) / (time.monotonic() - began)


async def kill_all(pids, every):
    while True:
        await asyncio.sleep(every)
        for pid in list(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def measure(function, seconds, every, workers):
    """Return the throughput without and with kills, the calls lost, and the kills."""
    pids, killed = set(), []
    pool = Pool(workers)
    pool.on("worker_ready", lambda event: pids.add(event.pid))
    pool.on(WorkerEnded, lambda event: pids.discard(event.pid))
    pool.on(WorkerEnded, lambda event: killed.append(event.signal == "SIGKILL"))
    async with pool:
        await pool.ready()
        load = Load(pool, function)
        await load.throughput(1)
        calm = await load.throughput(seconds / 2)
        killer = asyncio.ensure_future(kill_all(pids, every))
        under_fire = await load.throughput(seconds)
        killer.cancel()
        lost = load.wrong + pool.stats().lost
    return calm, under_fire, lost, sum(killed)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--every", type=float, default=1)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    logging.getLogger("offloop").setLevel(logging.ERROR)  # of kills we know
    good = True
    for function in (nothing, compute):
        figures = measure(function, given.seconds, given.every, given.workers)
        calm, under_fire, lost, kills = asyncio.run(figures)
        share = under_fire / calm
        good = good and not lost and share >= LEAST_SHARE
        print(
            f"{function.__name__}: {calm:,.0f} calls a second, {under_fire:,.0f} "
            f"({share:.0%}) while workers were killed {kills} times; {lost} lost"
        )
    print("all within limits" if good else "NOT within limits")
    return not good


if __name__ == "__main__":
    sys.exit(main())
