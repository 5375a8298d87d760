"""Having images made: submit a job, wait for it, and give it up when nobody waits.

The only place where the server touches the pool's jobs.
"""

from __future__ import annotations

import asyncio
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from starlette.requests import ClientDisconnect

from offloop import errors
from offloop.demo.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from starlette.types import Receive

    from offloop import Job
    from offloop.demo.jobs import Encoded
    from offloop.demo.parameters import Order
    from offloop.demo.service import Service

__all__ = ["Made", "make", "unless_left"]

T = TypeVar("T")


class Made(NamedTuple):
    """A finished image.

    Attributes:
        encoded: the image, and what the worker measured.
        worker: number of the worker that made it; None: it was made in this process.
        spans: seconds that passed in each part of the making, by name.
    """

    encoded: Encoded
    worker: int | None
    spans: dict[str, float]

    def server_timing(self, total: float) -> str:
        """Return the value of a Server-Timing header.

        Args:
            total: seconds of all, from the first byte of the request.
        """
        spans = {**self.spans, "total": total}
        return ", ".join(f"{name};dur={1000 * s:.1f}" for name, s in spans.items())


async def make(
    service: Service,
    order: Order,
    work: Callable[..., Encoded],
    *what: object,
    label: str,
    wait: bool = False,
) -> Made:
    """Have an image made as the order says, and return it.

    Args:
        service: its pool is used.
        order: what to make.
        work: a function of `jobs`.
        *what: its first argument; the recipe and the pixel limit follow.
        label: for those who watch.
        wait: wait when the pool is full, rather than be refused.

    Raises:
        Problem: what is wrong with the image; 503 when no worker came to it in time.
        OffloopError: what the pool says.
    """
    arguments = (*what, order.recipe, service.settings.max_pixels)
    try:
        if order.engine != "pool":
            return await _make_here(service, order.engine, work, arguments)
        return await _make_there(service, order, work, arguments, label, wait)
    finally:
        service.note_end()


async def _make_there(
    service: Service,
    order: Order,
    work: Callable[..., Encoded],
    arguments: tuple[Any, ...],
    label: str,
    wait: bool,
) -> Made:
    timeout = min(order.timeout or service.settings.timeout, service.settings.timeout)
    pool = service.pool.options(priority=order.priority, timeout=timeout)
    while True:
        try:
            job = pool.submit(work, *arguments)
            break
        except errors.PoolFull:
            if not wait:
                raise
            await service.room()
    with service.board.shows(job, label):
        encoded = await _result(service, job)
    service.board.learn(job.worker, encoded.pid)
    timings = job.timings
    spans = {
        "queue": timings.queued,
        "decode": encoded.decode,
        "resize": encoded.resize,
        "encode": encoded.encode,
        "ipc": timings.sent + timings.returned,
    }
    return Made(encoded, job.worker, spans)


async def _result(service: Service, job: Job[Encoded]) -> Encoded:
    try:
        return await job
    except errors.WorkerLost as lost:
        service.board.forget(lost.worker)
        raise
    except errors.JobTimeout:
        if job.attempts:
            raise
        raise Problem(
            503,
            "No worker came to this image in time; try again later.",
            headers={"Retry-After": str(service.retry_after())},
        ) from None


async def _make_here(
    service: Service,
    engine: str,
    work: Callable[..., Encoded],
    arguments: tuple[Any, ...],
) -> Made:
    """Make an image in this process: what offloading is to be compared with."""
    service.check_room()
    service.aside += 1
    began = perf_counter()
    try:
        if engine == "thread":
            encoded = await asyncio.to_thread(work, *arguments)
        else:
            await asyncio.sleep(0)  # its turn comes when those before it are done
            began = perf_counter()
            encoded = work(*arguments)
    finally:
        service.aside -= 1
    spans = {
        "decode": encoded.decode,
        "resize": encoded.resize,
        "encode": encoded.encode,
    }
    waited = perf_counter() - began - sum(spans.values())
    return Made(encoded, None, {"queue": max(waited, 0.0), **spans})


async def unless_left(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Wait for some work, but cancel it when the client leaves: nobody needs it then.

    Args:
        work: cancelling it cancels its jobs.
        receive: of the request, whose body has been read.

    Raises:
        ClientDisconnect: when the client has left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(receive))
    try:
        either: set[asyncio.Future[Any]] = {working, leaving}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        leaving.cancel()
        if working.cancel():
            await asyncio.wait([working])


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # the end of a body that nobody waits for
