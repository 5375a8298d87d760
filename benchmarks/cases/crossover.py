"""Where offloading loses: the time that a job takes, by its own length.

64 callers each await one job after the other; the figure is the time of the whole
divided by the number of jobs. Work on the loop costs its own length; in a thread, that
and a switch, one at a time, because Python code holds the GIL; in workers, its length
divided by the cores, and the price of a call.
"""

from __future__ import annotations

from time import perf_counter

import workloads
from harness import flow
from harness.figures import CORES, Case, Metric

#: seconds of a job, and their name
LENGTHS = {
    1e-6: "1 µs",
    1e-5: "10 µs",
    3e-5: "30 µs",
    1e-4: "100 µs",
    1e-3: "1 ms",
    1e-2: "10 ms",
}

CASES = (
    Case(
        name="crossover",
        title=f"Time for each job, by its own length, {CORES} workers, 64 in flight",
        module=__name__,
        metrics=tuple(Metric(str(length), name) for length, name in LENGTHS.items()),
        contenders=(
            "offloop",
            "inline",
            "asyncio.to_thread",
            "ProcessPoolExecutor",
        ),
        seconds=0.25,
    ),
)


async def measure(contender, seconds):
    turns = turns_a_second()
    found = {}
    async with contender(CORES) as peer:
        for length in LENGTHS:
            work = max(1, int(length * turns))
            found[str(length)] = 1 / await flow.rate(
                peer, workloads.spin, work, 64, seconds
            )
    return found


def turns_a_second() -> float:
    """Return how fast this machine spins: the same work for all, however busy it is."""
    best = 0.0
    for _ in range(20):
        began = perf_counter()
        workloads.spin(20_000)
        best = max(best, 20_000 / (perf_counter() - began))
    return best
