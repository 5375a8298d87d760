"""Asks workers what they are doing.

Each is sent a signal, upon which faulthandler writes the tracebacks of all threads to
the worker's page. It does so in the middle of anything, an endless loop in C included.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from offloop.engines.base import WorkerDump

if TYPE_CHECKING:
    from collections.abc import Sequence

    from offloop.core.scheduler import Scheduler
    from offloop.handles import WorkerHandle

# Seconds between two looks, and until the last one.
_INTERVAL = 0.005
_PATIENCE = 0.5

_SILENT = "it does not say: somebody has stopped it, or it ended\n"


async def take(
    workers: Sequence[WorkerHandle], scheduler: Scheduler
) -> list[WorkerDump]:
    """Return what these workers are doing; nothing of one that ends meanwhile."""
    running = {worker: _run_of(worker, scheduler) for worker in workers}
    for worker in workers:
        worker.speak()
    said = dict.fromkeys(workers, "")
    open_ones = set(workers)
    deadline = time.monotonic() + _PATIENCE
    while open_ones and time.monotonic() < deadline:
        await asyncio.sleep(_INTERVAL)
        for worker in list(open_ones):
            if worker.exit is not None:
                open_ones.discard(worker)
                continue
            before, said[worker] = said[worker], worker.spoken()
            if before and before == said[worker]:  # it has said all of it
                open_ones.discard(worker)
    living = [worker for worker in said if worker.exit is None]
    for worker in living:
        worker.fall_silent()
    return [
        WorkerDump(
            worker.number, worker.pid or 0, *running[worker], said[worker] or _SILENT
        )
        for worker in living
    ]


def _run_of(
    worker: WorkerHandle, scheduler: Scheduler
) -> tuple[int | None, str, float]:
    """Return the job that a worker runs, its function, and for how long."""
    job = worker.page.running()
    call: Any = scheduler.held(worker.number, job) if job else None
    if call is None:
        return None, "", 0.0
    return job, call.function.name, time.monotonic() - worker.page.since()
