"""Does a decision cost the same among many workers and many waiting jobs?

Measured is the scheduler alone, without sockets or processes. All workers are busy and
so many jobs wait; then, again and again, one job is submitted and one is finished,
which sends the next one. The time of a step contains the record, both facts and all
commands.

    python benchmarks/scheduler_scaling.py
    python benchmarks/scheduler_scaling.py --quick

Fails when a step takes 5 us or more, or more than 1.5 times what it takes with 2
workers and 1,000 waiting jobs. The garbage collector is off, and everything is frozen
before: that it looks at a million waiting jobs now and then is the program's affair,
not the scheduler's.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections import deque
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from offloop.core.commands import SendJobs
from offloop.core.job import JobRecord, Terms
from offloop.core.policies import RunTime
from offloop.core.scheduler import Scheduler

if TYPE_CHECKING:
    from offloop.core.commands import Command

LIMIT_US = 5.0
LIMIT_RATIO = 1.5

WORKERS = (2, 32, 1_000)
QUEUED = (1_000, 100_000, 1_000_000)


class Load:
    """A scheduler with busy workers and waiting jobs."""

    def __init__(self, workers: int, queued: int) -> None:
        self.scheduler = Scheduler()
        # Of long jobs: each has its worker for itself.
        self.terms = Terms(RunTime())
        #: jobs that run: (worker, number)
        self.running: deque[tuple[int, int]] = deque()
        for number in range(workers):
            self.scheduler.worker_ready(number, 0.0)
        for _ in range(workers + queued):
            self.note(self.scheduler.job_submitted(self.make(), 0.0))

    def make(self) -> JobRecord:
        return JobRecord(self.scheduler.next_id(), self.terms)

    def note(self, commands: list[Command]) -> None:
        for command in commands:
            if isinstance(command, SendJobs):
                self.running += [(command.worker, job.id) for job in command.jobs]

    def step_time(self, steps: int) -> float:
        """Return the seconds that one job takes from its submission to its result."""
        scheduler, running = self.scheduler, self.running
        now = 1.0
        begin = perf_counter()
        for _ in range(steps):
            now += 1e-6
            scheduler.job_submitted(self.make(), now)
            worker, job = running.popleft()
            self.note(scheduler.jobs_finished(worker, [(job, None, 1.0)], now))
        return (perf_counter() - begin) / steps


def measure(workers: int, queued: int, repeats: int, steps: int) -> float:
    """Return the median microseconds of a step."""
    load = Load(workers, queued)
    load.step_time(steps // 10)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        return median(load.step_time(steps) for _ in range(repeats)) * 1e6
    finally:
        gc.enable()
        gc.unfreeze()


def main() -> int:
    """Print the table; returns 1 if a bound is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="at most 100,000 jobs wait"
    )
    quick = parser.parse_args().quick
    repeats, steps = (5, 5_000) if quick else (7, 20_000)
    smallest = None
    missed = False
    print(f"{'workers':>9}{'waiting':>11}{'us a job':>10}{'ratio':>7}")
    for queued in QUEUED[:2] if quick else QUEUED:
        for workers in WORKERS:
            cost = measure(workers, queued, repeats, steps)
            smallest = smallest or cost
            ratio = cost / smallest
            bad = cost >= LIMIT_US or ratio > LIMIT_RATIO
            missed = missed or bad
            mark = "  too much" if bad else ""
            print(f"{workers:>9,}{queued:>11,}{cost:>10.2f}{ratio:>7.2f}{mark}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
