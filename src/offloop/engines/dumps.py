"""Asks workers what they are doing.

Each is sent a signal, upon which faulthandler writes the tracebacks of all threads to
the worker's page. It does so in the middle of anything, an endless loop in C included.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from offloop.engines.base import WorkerDump

if TYPE_CHECKING:
    from collections.abc import Sequence

    from offloop.core.scheduler import Scheduler
    from offloop.handles import WorkerHandle

# Seconds that each has to answer.
_PATIENCE = 0.5

_SILENT = "it does not say: somebody has stopped it, or it ended\n"


async def take(
    workers: Sequence[WorkerHandle], scheduler: Scheduler
) -> list[WorkerDump]:
    """Return what these workers are doing; nothing of one that ends meanwhile."""
    loop = asyncio.get_running_loop()
    running = {worker: _run_of(worker, scheduler) for worker in workers}
    answers = {worker: loop.create_future() for worker in workers}
    for worker, answer in answers.items():
        worker.hearing.ask(partial(_answer, answer), _PATIENCE)
    said = [(worker, await answer) for worker, answer in answers.items()]
    return [
        WorkerDump(worker.number, worker.pid or 0, *running[worker], text or _SILENT)
        for worker, text in said
        if worker.exit is None
    ]


def _answer(answer: asyncio.Future[str], text: str) -> None:
    if not answer.done():  # whoever asked may have gone
        answer.set_result(text)


def _run_of(
    worker: WorkerHandle, scheduler: Scheduler
) -> tuple[int | None, str, float]:
    """Return the job that a worker runs, its function, and for how long."""
    job = worker.page.running()
    call: Any = scheduler.held(worker.number, job) if job else None
    if call is None:
        return None, "", 0.0
    return job, call.function.name, time.monotonic() - worker.page.since()
