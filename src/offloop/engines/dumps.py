"""Looks what workers are doing, and asks them where they are.

Looking disturbs nobody: a worker's page says which job runs, and since when. Who is
asked is sent a signal, upon which faulthandler writes the tracebacks of all threads to
the page. It does so in the middle of anything, an endless loop in C included.
"""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from offloop.engines.figures import WorkerDump, WorkerInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from offloop.core.scheduler import Scheduler
    from offloop.handles import WorkerHandle
    from offloop.supervisor import Supervisor

# Seconds that each has to answer.
_PATIENCE = 0.5

_SILENT = "it does not say: somebody has stopped it, or it ended\n"


# Bytes in which the system counts what a file has of memory, whatever its pages are.
_BLOCK = 512


def look(supervisor: Supervisor, scheduler: Scheduler) -> list[WorkerInfo]:
    """Return what each worker of the pool is doing, in the order of their places."""
    idle = set(scheduler.idle_workers())
    now = time.monotonic()
    found = []
    for worker in supervisor.workers:
        number = worker.number
        if number < 0:  # it is only being tried
            continue
        state = supervisor.state_of(worker)
        if state == "ready":
            state = "idle" if number in idle else "busy"
        found.append(
            WorkerInfo(
                number,
                worker.slot,
                worker.pid,
                state,
                now - worker.made_at,
                scheduler.jobs_of(number),
                *_run_of(worker, scheduler),
                os.fstat(worker.results).st_blocks * _BLOCK,
            )
        )
    return sorted(found, key=lambda one: (one.slot < 0, one.slot, one.worker))


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
