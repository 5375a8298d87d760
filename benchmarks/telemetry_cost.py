"""What telemetry takes from the throughput of jobs that do nothing.

    python benchmarks/telemetry_cost.py [--jobs N] [--rounds N]

    off         no control socket, no logs of jobs; figures are always counted
    on          a pool as it is: it can be watched, and logs of jobs arrive
    watched     somebody looks ten times a second, as `offloop top` does each second
    metrics     `metrics_app` is asked ten times a second, and `watch_loop` is on
    slow_job    jobs above a limit are told of; none is
    events      somebody hears of everything that happens to pools and workers
    all         all of that
    each job    somebody hears of each job's end as well (`JobFinished`)

64 callers, two workers, fresh pools that take turns; the median of the rounds. What is
on must leave at least 85 % of what is off; hearing of each job is told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import threading
import time
from pathlib import Path

from offloop import Pool, operated
from offloop.control import Line
from offloop.telemetry import events, metrics_app

CALLERS = 64
WORKERS = 2

KINDS = ("off", "on", "watched", "metrics", "slow_job", "events", "all", "each job")

#: what is told of each job, and what of everything else
PER_JOB = tuple(kind for kind in events.EVENTS if kind.__name__.startswith("JobFin"))
OTHERS = tuple(kind for kind in events.EVENTS if kind not in PER_JOB)


def nothing():
    """Do nothing."""


async def scrape(app):
    """Ask for all figures, ten times a second."""
    scope = {"type": "http", "method": "GET", "headers": []}

    async def send(message):
        pass

    while True:
        await app(scope, None, send)
        await asyncio.sleep(0.1)


@contextlib.contextmanager
def watched(pool, wanted):
    """Have a pool looked at from outside meanwhile, if that is wanted."""
    if not wanted:
        yield
        return
    ended = threading.Event()

    def look():
        with Line(Path(pool._engine.home, operated.NAME), 60.0) as line:
            while not ended.wait(0.1):
                assert line.ask("look")["ok"]

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield
    finally:
        ended.set()


@contextlib.asynccontextmanager
async def asked(wanted):
    """Have the figures asked for meanwhile, if they are wanted."""
    if not wanted:
        yield
        return
    task = asyncio.ensure_future(scrape(metrics_app()))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def measure(kind, count):
    """Return jobs a second."""
    everything = kind in ("all", "each job")
    slow = 60.0 if everything or kind == "slow_job" else None
    on = kind != "off"
    pool = Pool(WORKERS, slow_job=slow, control=on, forward_logs=on)
    if everything or kind == "events":
        for event in OTHERS:
            pool.on(event, id)
    if kind == "each job":
        for event in PER_JOB:
            pool.on(event, id)

    async def caller(count):
        for _ in range(count):
            await pool.run(nothing)

    async def run(count):
        share = count // CALLERS
        await asyncio.gather(*(caller(share) for _ in range(CALLERS)))

    async with pool, asked(everything or kind == "metrics"):
        await pool.ready()
        await asyncio.sleep(0.3)  # the control socket comes a moment later
        with watched(pool, everything or kind == "watched"):
            await run(count // 4)
            began = time.perf_counter()
            await run(count)
            return count / (time.perf_counter() - began)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jobs", type=int, default=32_000, help="of a measurement")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    found = {kind: [] for kind in KINDS}
    for _ in range(options.rounds):
        for kind in KINDS:
            found[kind].append(asyncio.run(measure(kind, options.jobs)))
    print(f"{'':12}{'jobs/s':>10}{'of off':>9}")
    for kind, speeds in found.items():
        shares = [one / off for one, off in zip(speeds, found["off"], strict=True)]
        share = statistics.median(shares)
        print(f"{kind:12}{statistics.median(speeds):10,.0f}{share:9.1%}")


if __name__ == "__main__":
    main()
