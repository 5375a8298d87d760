"""How long the caller's event loop stands still: offloop beside its peers, in one run.

    python benchmarks/loop_lag.py [--quick] [--ours] [--only CASE]

A task on the loop wants to run every millisecond, and notes how late it is, while with
two workers

- arrays of 16 MB go, four at a time, for some seconds
- one array of 128 MB goes, again and again
- 50,000 small jobs end that were submitted in one statement; the statement's own time
  does not count
- a list of a million numbers goes, and one of 100,000 pairs

Prints the worst lateness of each run and the 99th percentile, in milliseconds: medians
of several runs, each in a fresh process, the contenders in turn. Exits with 1 if
offloop is later than it promises: 8 ms with the arrays of 16 MB, 4 ms else; lists have
no limit, because pickling does one step in them that nobody can interrupt.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time

import numpy as np
import payload_jobs as jobs
from peers import CONTENDERS, OURS, CannotDo, print_reasons, report, take_turns

MB = 1024 * 1024
TICK = 0.001
#: case, and the worst lateness in seconds that is promised
CASES = {"4 x 16 MB": 0.008, "128 MB": 0.004, "small jobs": 0.004, "lists": None}
SMALL_JOBS = 50_000


class Ticker:
    """Notes how late a task is that wants to run every millisecond."""

    def __init__(self):
        self.late = []
        self._begin = 0.0

    async def __aenter__(self):
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0.05)
        self.begin()
        return self

    def begin(self):
        """Forget what was before: a delay counts from now on."""
        self.late.clear()
        self._begin = time.perf_counter()

    async def __aexit__(self, *error):
        await asyncio.sleep(2 * TICK)  # so that the last delay is noted as well
        self._task.cancel()

    async def _tick(self):
        while True:
            due = time.perf_counter() + TICK
            await asyncio.sleep(TICK)
            self.late.append(time.perf_counter() - max(due, self._begin))


# ---- in a process of its own ---------------------------------------------------------


async def measure(contender, case, seconds):
    """Report the worst lateness, the 99th percentile, and what was done meanwhile."""
    if hasattr(contender, "place"):
        raise CannotDo("is the same as offloop here")
    async with contender(2) as peer:
        await asyncio.gather(*(peer.run(jobs.total, np.ones(1000)) for _ in range(4)))
        ticker = Ticker()
        done = await LOADS[case](peer, ticker, seconds)
        late = sorted(ticker.late)
        return {"worst": late[-1], "p99": late[int(len(late) * 0.99)], "done": done}


async def keep_sending(peer, ticker, fn, arguments, seconds):
    """Send each argument again and again; returns how many jobs a second ended."""

    async def caller(argument):
        calls = 0
        while time.perf_counter() < end:
            await peer.run(fn, argument)
            calls += 1
        return calls

    await peer.run(fn, arguments[0])
    end = time.perf_counter() + seconds
    async with ticker:
        return sum(await asyncio.gather(*map(caller, arguments))) / seconds


async def send_four(peer, ticker, seconds):
    arrays = [np.ones(16 * MB // 8) for _ in range(4)]
    return await keep_sending(peer, ticker, jobs.total, arrays, seconds)


async def send_one(peer, ticker, seconds):
    arrays = [np.ones(128 * MB // 8)]
    return await keep_sending(peer, ticker, jobs.total, arrays, seconds)


async def send_lists(peer, ticker, seconds):
    lists = [list(range(1_000_000)), [(i, -i) for i in range(100_000)]]
    return await keep_sending(peer, ticker, jobs.count, lists, seconds)


async def drain_small_jobs(peer, ticker, seconds):
    waiting, ended = SMALL_JOBS, asyncio.Event()

    def note_end(job):
        nonlocal waiting
        waiting -= 1
        if not waiting:
            ended.set()

    async with ticker:
        submitted = [peer.submit(jobs.nothing, value) for value in range(SMALL_JOBS)]
        for job in submitted:
            job.add_done_callback(note_end)
        ticker.begin()
        began = time.perf_counter()
        await ended.wait()
    return SMALL_JOBS / (time.perf_counter() - began)


LOADS = {
    "4 x 16 MB": send_four,
    "128 MB": send_one,
    "small jobs": drain_small_jobs,
    "lists": send_lists,
}


# ---- in the process that starts the others -------------------------------------------


def run_case(case, seconds, repeats, names):
    """Let the contenders take turns; returns the medians, or why there are none."""
    found = take_turns(names, repeats, __file__, 90, case, seconds)
    return {(name, case): merge(results) for name, results in found.items()}


def merge(results):
    if "cannot" in results[-1]:
        return results[-1]
    return {
        key: statistics.median(result[key] for result in results) for key in results[0]
    }


def print_case(case, results):
    print(f"\n{case:<22}{'worst ms':>10}{'p99 ms':>10}{'jobs/s':>10}")
    for (name, _), result in results.items():
        if "cannot" not in result:
            worst, p99 = result["worst"] * 1e3, result["p99"] * 1e3
            print(f"{name:<22}{worst:>10.1f}{p99:>10.1f}{result['done']:>10.0f}")
    print_reasons(results)
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="once instead of 3 times")
    parser.add_argument("--only", choices=CASES, help="one case")
    parser.add_argument("--ours", action="store_true", help="offloop alone")
    args = parser.parse_args()
    names = OURS if args.ours else CONTENDERS
    broken = []
    for case, limit in CASES.items():
        if args.only not in (None, case):
            continue
        seconds, repeats = (2.0, 1) if args.quick else (4.0, 3)
        results = run_case(case, seconds, repeats, names)
        print_case(case, results)
        ours = results["offloop", case]
        if "cannot" in ours:
            broken.append(f"{case}: {ours['cannot']}")
        elif limit is not None and ours["worst"] > limit:
            late, allowed = ours["worst"] * 1e3, limit * 1e3
            broken.append(f"{case}: {late:.1f} ms late, {allowed:g} are promised")
    if broken:
        print("\nmissed:")
        print(*(f"    {one}" for one in broken), sep="\n")
    return bool(broken)


if __name__ == "__main__":
    if not report(measure):
        sys.exit(main())
