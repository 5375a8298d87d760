"""Jobs that never end by themselves, and how soon their callers are free of them.

    python benchmarks/timeouts.py

Two hundred endless loops under `asyncio.timeout`, one after the other: each must end at
once when its 50 ms are over. Then jobs that do not listen, with ``timeout=0.3`` and the
pool's `grace` as it is: a loop in C that holds the interpreter's lock, one that blocks
all signals and swallows all exceptions, and one whose process is stopped (SIGSTOP).
Within timeout + grace + 0.1 s the caller must have its JobTimeout, and the process must
be gone. At last, what it costs a job to say a million times how far it is.

Exits with 1 if the median of the loops is over 80 ms, another time is over its limit, a
process is left, or a report costs more than a microsecond.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import statistics
import sys
import time
from pathlib import Path

from offloop import Pool
from offloop.errors import JobTimeout
from streams import cost_of_reports

TIMES = 200
TIMEOUT = 0.05
MAX_MEDIAN = 0.08

DEAF_TIMES = 10
DEAF_TIMEOUT = 0.3
GRACE = 0.2  # what a pool gives if it is not told
SLACK = 0.1

MAX_REPORT = 1e-6


def endless():
    while True:
        pass


def loop_in_c():
    """Never let go of the interpreter's lock."""
    sum(itertools.repeat(0))


def ignore_everything():
    """Hear no signal, and swallow what is raised here all the same."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while True:
        try:
            while True:
                pass
        except BaseException:
            continue


def stop_oneself():
    os.kill(os.getpid(), signal.SIGSTOP)


DEAF = (loop_in_c, ignore_everything, stop_oneself)


async def end_loops():
    """Return the seconds that each call took."""
    times = []
    async with Pool(1) as pool:
        await pool.ready()
        for _ in range(TIMES):
            began = time.perf_counter()
            try:
                async with asyncio.timeout(TIMEOUT):
                    await pool.run(endless)
            except TimeoutError:
                times.append(time.perf_counter() - began)
    return times


async def end_deaf(function):
    """Return the seconds until each caller was told, and until its worker was gone."""
    told, gone = [], []
    ends = asyncio.Queue()
    async with Pool(1, timeout=DEAF_TIMEOUT) as pool:
        pool.on("worker_ended", ends.put_nowait)
        await pool.ready()
        for _ in range(DEAF_TIMES):
            began = time.perf_counter()
            try:
                await pool.run(function)
            except JobTimeout as error:
                told.append(time.perf_counter() - began)
                pid = error.pid
            ended = await ends.get()
            gone.append(time.perf_counter() - began)
            assert ended.pid == pid
            assert await pool.run(os.getpid) != pid
    return told, gone


def children():
    """Return the numbers of this process's children, whichever thread started them."""
    files = Path("/proc/self/task").glob("*/children")
    return [number for file in files for number in file.read_text().split()]


def main():
    logging.getLogger("offloop").setLevel(logging.ERROR)  # it tells of each kill
    times = asyncio.run(end_loops())
    median = statistics.median(times)
    print(f"{len(times)} calls that never end, each given {TIMEOUT * 1e3:.0f} ms")
    print(f"median {median * 1e3:.1f} ms, longest {max(times) * 1e3:.1f} ms")
    good = median <= MAX_MEDIAN and len(times) == TIMES

    limit = DEAF_TIMEOUT + GRACE + SLACK
    print(
        f"timeout {DEAF_TIMEOUT:g} s, grace {GRACE:g} s: within {limit * 1e3:.0f} ms, "
        f"the longest of {DEAF_TIMES}"
    )
    for function in DEAF:
        told, gone = asyncio.run(end_deaf(function))
        print(
            f"{function.__name__:>20}  told after {max(told) * 1e3:.0f} ms, "
            f"its process gone after {max(gone) * 1e3:.0f} ms"
        )
        good = good and len(told) == DEAF_TIMES and max(*told, *gone) <= limit

    left = children()
    print(f"processes left: {len(left)}")
    report = asyncio.run(cost_of_reports())
    print(f"a million reports of progress: {report * 1e9:.0f} ns each")
    return not good or bool(left) or report > MAX_REPORT


if __name__ == "__main__":
    sys.exit(main())
