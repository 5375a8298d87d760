"""What all requests of one server share, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import offloop
from offloop import errors
from offloop.demo import jobs
from offloop.demo.board import Board
from offloop.demo.budget import Budget
from offloop.demo.lag import LagMonitor
from offloop.demo.metrics import Metrics
from offloop.demo.pace import Pace
from offloop.demo.problems import FULL, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from offloop import Pool
    from offloop.demo.jobs import Abilities, Encoded
    from offloop.demo.settings import Settings

__all__ = ["Service", "open_service"]

# Seconds between two looks whether workers were replaced.
_CENSUS_PERIOD = 0.5


@dataclass(slots=True)
class Service:
    """The pool and everything around it.

    Attributes:
        settings: the limits.
        pool: where images are made.
        abilities: what the workers can do.
        budget: memory for uploads.
        pace: how fast images get done.
        board: who works on what.
        lag: how late the loop is.
        metrics: for Prometheus.
        closing: set when the server begins to end.
        aside: images being made in this process, to show the difference.
        started: monotonic seconds.
        waiters: those who wait for room.
        listeners: connections that get events.
    """

    settings: Settings
    pool: Pool
    abilities: Abilities
    budget: Budget
    pace: Pace
    board: Board
    lag: LagMonitor
    metrics: Metrics
    closing: asyncio.Event
    aside: int = 0
    started: float = field(default_factory=time.monotonic)
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    listeners: int = 0

    @property
    def pending(self) -> int:
        """Images that wait or are being made."""
        return self.pool.stats().pending + self.aside

    def encoder(self) -> Callable[..., Encoded]:
        """Return the job that makes an image of a file."""
        by_vips = self.settings.codec == "vips"
        return jobs.encode_by_vips if by_vips else jobs.encode

    async def reload(self) -> None:
        """Replace all workers, one after the other; no image is lost."""
        await self.pool.reload()

    def retry_after(self) -> int:
        """Return the seconds after which another attempt makes sense."""
        return self.pace.retry_after(time.monotonic(), self.pending)

    def note_end(self) -> None:
        """Note that an image is done, in whatever way."""
        self.pace.note_end(time.monotonic())
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def room(self) -> None:
        """Wait until an image is done; there may be room then."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.append(waiter)
        await waiter

    def check_room(self) -> None:
        """Refuse early what would be refused once it is here.

        Raises:
            Problem: 429 when the queue is full, 503 when the server is ending.
        """
        if not self.pool.is_open or self.closing.is_set():
            wait = {"Retry-After": "1", "Connection": "close"}
            raise Problem(503, "The server is shutting down.", headers=wait)
        if self.pending >= self.settings.max_pending:
            wait = {"Retry-After": str(self.retry_after())}
            raise Problem(429, FULL, headers=wait)


@asynccontextmanager
async def open_service(
    settings: Settings, closing: asyncio.Event
) -> AsyncIterator[Service]:
    """Start the workers; when the block ends they are drained.

    Args:
        settings: the limits.
        closing: set by whoever ends the server, before it waits for requests.
    """
    async with (
        LagMonitor() as lag,
        offloop.Pool(
            settings.workers,
            max_pending=settings.max_pending,
            timeout=settings.timeout,
            memory_limit=settings.memory_limit,
            recycle=offloop.Recycle(max_rss=settings.memory_limit // 2),
            preload=jobs.PRELOAD,
            isolation=None if settings.isolation == "none" else "process",
            sandbox=settings.isolation == "sandbox",
            name="demo",
        ) as pool,
    ):
        await pool.ready()
        board, pace = Board(), Pace()
        abilities = await _ask_workers(pool, board, settings.codec)
        metrics = Metrics()
        service: Service
        budget = Budget(settings.max_upload_bytes, lambda: service.retry_after())
        service = Service(
            settings, pool, abilities, budget, pace, board, lag, metrics, closing
        )
        metrics.watch(service)
        census = asyncio.ensure_future(_keep_asking(service))
        try:
            yield service
        finally:
            census.cancel()


async def _ask_workers(pool: Pool, board: Board, codec: str) -> Abilities:
    """Let every worker say what it can do, and which process it is.

    All of them should be idle: jobs that are submitted together then go to one worker
    each, as a rule.
    """
    asked = [pool.submit(jobs.abilities, codec) for _ in range(pool.stats().workers)]
    answers = await asyncio.gather(*asked)
    board.renew(
        {
            job.worker: answer.pid
            for job, answer in zip(asked, answers, strict=True)
            if job.worker is not None
        }
    )
    return answers[0]


async def _keep_asking(service: Service) -> None:
    """Ask the workers anew when some were replaced and all have time to answer.

    Workers that are busy make themselves known by what they do. Those that end with
    their first job would end by being asked.
    """
    pool, board = service.pool, service.board
    if service.settings.isolation != "none":
        return
    asked = pool.stats().workers_started
    while True:
        await asyncio.sleep(_CENSUS_PERIOD)
        stats = pool.stats()
        news = stats.workers_started != asked or board.known < stats.workers
        if news and stats.workers == stats.idle > 0:
            # Whoever is lost or full at this moment is asked another time.
            with contextlib.suppress(errors.OffloopError):
                codec = service.settings.codec
                service.abilities = await _ask_workers(pool, board, codec)
                asked = stats.workers_started
