"""What engines have in common whose jobs' large arguments lie in shared memory.

    submit ─▶ encode ─┬──────────────▶ enter          settle ◀─┬──────────── answer
                      └─▶ transfers ─▶ enter                   └─ transfers ◀──┘
                             │                                        │
                             └─────── memory, looked at now and then ─┘

What takes a while to copy, to pickle or to read does so in `Transfers`; until it has
entered, a job is pending here and unknown to the scheduler. While memory is in use it
is looked after: what nobody sees any more goes back.

A subclass carries jobs, and says whom to tell of what has gone.
"""

from __future__ import annotations

import abc
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from offloop import arrays
from offloop.core.job import Ending
from offloop.engines.base import Ref
from offloop.engines.logbook import Logbook
from offloop.engines.scheduled import ScheduledEngine
from offloop.engines.transfers import Transfers

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from offloop.core.scheduler import Scheduler
    from offloop.engines.call import Call
    from offloop.engines.figures import PoolStats
    from offloop.engines.memory import Memory
    from offloop.options import PoolOptions
    from offloop.telemetry.events import Listeners

# Seconds between two looks at memory that is in use.
_HOUSE = 0.25

# Seconds that memory which is about to fall due is left alone at least.
_LEAST_HOUSE = 0.002


class LendingEngine(ScheduledEngine):
    """Lends memory to those who run its jobs.

    Args:
        options: of the pool.
        listeners: are told what happens.
        memory: what is lent.
        max_credit: jobs that one worker may hold.
        scheduler: decides about the jobs; None: one for workers of this engine.
        first_put: number of the first object that is put.
    """

    def __init__(
        self,
        options: PoolOptions,
        listeners: Listeners,
        memory: Memory,
        *,
        max_credit: int,
        scheduler: Scheduler | None = None,
        first_put: int = 1,
    ) -> None:
        super().__init__(options, listeners, max_credit=max_credit, scheduler=scheduler)
        self._memory = memory
        self._transfers = Transfers(
            memory,
            self._loaded,
            self._jobs_ended,
            self._accounts,
            first_put=first_put,
        )
        #: handles what jobs log, in this process
        self._logbook = Logbook(options.name)
        #: when unused memory is given back and told of; None while there is none
        self._house_timer: asyncio.TimerHandle | None = None

    # What a subclass does

    @abc.abstractmethod
    def _give_back(self, dropped: list[int]) -> bool:
        """Tell others of what nobody here uses any more.

        Args:
            dropped: numbers of what was put, and nobody refers to now.

        Returns:
            True while something of theirs is in use here.
        """

    # The engine's face

    def empty(self, shape: Any, dtype: Any, *, zero: bool = False) -> Any:
        array = arrays.empty(self._memory.view, shape, dtype, zero=zero)
        self._mind_memory()
        return array

    async def put(self, obj: object) -> Ref:
        stored = await self._transfers.put(self, obj)
        self._mind_memory()
        return Ref(stored)

    def cancel(self, job: int) -> None:
        if not self._transfers.cancel(job):
            super().cancel(job)

    def cancel_all(self) -> None:
        self._transfers.cancel_all()
        super().cancel_all()

    async def read_part(self, payload: Any, buffers: Sequence[Any]) -> Any:
        return await self._transfers.read(payload, buffers)

    def stats(self) -> PoolStats:
        seen = super().stats()
        loading, ended = len(self._transfers.loading), self._transfers.ended_early
        return replace(
            seen,
            arena_used=self._memory.arena.used,
            arena_limit=self._memory.arena.limit,
            queued=seen.queued + loading,
            pending=seen.pending + loading,
            submitted=seen.submitted + loading + ended.total(),
            failed=seen.failed + ended[Ending.ERROR],
            cancelled=seen.cancelled + ended[Ending.CANCELLED],
            timed_out=seen.timed_out + ended[Ending.TIMEOUT],
        )

    # In and out

    def _encode(
        self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        last = self._turns.wants_memory
        later = self._transfers.encode(self, call, args, kwargs, last=last)
        if call.buffers or later:
            self._mind_memory()
        return later

    def _loaded(self, call: Call) -> None:
        """Let the scheduler have a call whose arguments took a while."""
        if self._failure is not None:
            raise self._failure
        self._enter(call, time.monotonic())

    def _deliver(self, call: Call, payload: Any, buffers: Sequence[Any]) -> None:
        if not self._transfers.decode(call, payload, buffers):
            super()._deliver(call, payload, buffers)

    def _idle(self) -> bool:
        return super()._idle() and not self._transfers.busy

    def _elsewhere(self) -> int:
        return len(self._transfers.loading)

    def _heard_said(
        self, worker: int, rows: list[tuple[Any, ...]], dropped: int
    ) -> None:
        """Take what the jobs of a worker of this engine have logged."""
        self._logbook.take(worker, rows, dropped, partial(self._scheduler.held, worker))

    # Memory

    async def _wait_memory(self) -> None:
        self._mind_memory()  # what goes back may be what is missing
        await self._transfers.memory_change()

    def _mind_memory(self) -> None:
        """See to it that memory goes back when nobody uses it."""
        if self._house_timer is None:
            self._house_timer = self.loop.call_later(_HOUSE, self._keep_house)

    def _keep_house(self) -> None:
        self._house_timer = None
        now = time.monotonic()
        arena = self._memory.arena
        due = arena.trim(now)
        sees_others = self._give_back(self._transfers.drain_dropped())
        self._transfers.memory_freed()
        # Whoever drops an array of `empty`, or a result, tells nobody.
        if due is not None or sees_others or arena.used:
            rest = _HOUSE if due is None else max(due - now, _LEAST_HOUSE)
            self._house_timer = self.loop.call_later(
                min(rest, _HOUSE), self._keep_house
            )

    async def _close_memory(self) -> None:
        """End what is on its way in or out, and then the memory."""
        if self._house_timer is not None:
            self._house_timer.cancel()
        await self._transfers.close()
