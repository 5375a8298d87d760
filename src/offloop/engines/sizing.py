"""How many workers a local engine has, and who waits for them to be ready.

A pool of a fixed size has as many as it was told. The size of another one follows the
work: `core.elastic` decides, from figures that are gathered here whenever jobs wait,
and now and then while there are more workers than there must be.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from offloop.core.elastic import Elastic
from offloop.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from offloop.core.scheduler import Scheduler
    from offloop.options import PoolOptions
    from offloop.supervisor import Supervisor
    from offloop.telemetry.events import Listeners

# Seconds after which an idle worker goes, unless the pool says otherwise.
_IDLE_TIMEOUT = 60.0


class Sizing:
    """Sees to the number of workers.

    Args:
        options: of the pool.
        scheduler: knows who has work, and what waits.
        supervisor: is told how many there should be.
        listeners: are told of each change.
    """

    def __init__(
        self,
        options: PoolOptions,
        scheduler: Scheduler,
        supervisor: Supervisor,
        listeners: Listeners,
    ) -> None:
        self._listeners = listeners
        self._scheduler = scheduler
        self._supervisor = supervisor
        self._loop = asyncio.get_running_loop()
        #: follows the work; None for a pool of a fixed size
        self._elastic = _elastic_of(options)
        #: workers that there should be now
        self.target = options.max_workers
        if self._elastic is not None:
            self.target = self._elastic.target
        #: workers that have a place in the pool, and may get jobs
        self.ready = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        #: those who wait for so many workers to be ready
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []

    @property
    def is_elastic(self) -> bool:
        """True if the size follows the work."""
        return self._elastic is not None

    def close(self) -> None:
        """Change nothing any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def bound(self, workers: int) -> None:
        """Have so many workers, or at most so many if the size follows the work."""
        if self._elastic is None:
            self._resize(workers, "asked")
        else:
            self._elastic.bound(workers)
            self._resize(self._elastic.target, "asked")
            self.mind()

    def worker_ready(self) -> None:
        """Note that there is one more worker."""
        self.ready += 1
        self._wake()
        self.mind()

    def worker_gone(self) -> None:
        """Note that there is one worker less."""
        self.ready -= 1

    # Following the work

    def mind(self) -> None:
        """See to it that the size is looked at, if it can change at all."""
        elastic = self._elastic
        if elastic is None or self._closed:
            return
        waiting = self._scheduler.waiting
        nobody = not elastic.target  # then jobs cannot wait
        if waiting and nobody and elastic.jobs_waited(waiting, 0.0, 0):
            self._resize(elastic.target, "jobs waited")
        if self._timer is not None and not waiting:
            return  # an earlier look would find nothing
        delay = elastic.next_look(waiting)
        if delay is None:
            return
        when = self._loop.time() + delay
        if self._timer is None or self._timer.when() > when:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(when, self._look, elastic)

    def _look(self, elastic: Elastic) -> None:
        self._timer = None
        scheduler, supervisor = self._scheduler, self._supervisor
        now = time.monotonic()
        longest = scheduler.longest_wait(now)
        if elastic.jobs_waited(scheduler.waiting, longest, supervisor.starting):
            self._resize(elastic.target, "jobs waited")
        idle = {
            number: supervisor.last_job_began(number)
            for number in scheduler.idle_workers()
        }
        spare = elastic.workers_idled(idle, now)
        if spare:
            self._resize(elastic.target, "workers idled", spare)
        self.mind()

    def _resize(self, workers: int, why: str, first: Sequence[int] = ()) -> None:
        """Want so many workers; who waits for more waits for those now."""
        before, self.target = self.target, workers
        if before != workers:
            sizes = {"before": before, "after": workers}
            self._listeners.tell(events.PoolResized, **sizes, reason=why)
        self._supervisor.scale(workers, first)
        self._waiters = [(min(n, workers), waiter) for n, waiter in self._waiters]
        self._wake()

    # Waiting

    async def wait_ready(self, workers: int) -> None:
        """Wait until so many workers are ready.

        Raises:
            StartError: they cannot be had.
            PoolClosed: the pool was closed meanwhile.
        """
        if self.ready < workers:
            waiter = self._loop.create_future()
            self._waiters.append((workers, waiter))
            await waiter

    def stop_waiting(self, error: Exception) -> None:
        """Let everybody who waits for workers fail with `error`."""
        for _, waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(error)
        self._waiters.clear()

    def _wake(self) -> None:
        for waiting in list(self._waiters):
            wanted, waiter = waiting
            if self.ready >= wanted:
                self._waiters.remove(waiting)
                if not waiter.done():
                    waiter.set_result(None)


def _elastic_of(options: PoolOptions) -> Elastic | None:
    """Return what decides about the pool's size, None if that is fixed."""
    if not options.is_elastic:
        return None
    return Elastic(
        options.min_workers or 0,
        options.max_workers,
        _IDLE_TIMEOUT if options.idle_timeout is None else options.idle_timeout,
    )
