"""The scheduler among many workers and many waiting jobs, by simulation."""

from __future__ import annotations

import scheduler_scaling
from harness.figures import Case, Metric

WORKERS = (2, 32, 1_000)
QUEUED = 100_000

CASES = (
    Case(
        name="scaling",
        title=f"offloop's decisions for one job, {QUEUED:,} waiting (simulation)",
        module=__name__,
        metrics=tuple(Metric(str(number), f"{number:,} workers") for number in WORKERS),
        contenders=("offloop",),
        seconds=None,
        weight=0.2,
    ),
)


def measure(contender):
    return {
        str(number): scheduler_scaling.measure(number, QUEUED, 3, 5_000) * 1e-6
        for number in WORKERS
    }
