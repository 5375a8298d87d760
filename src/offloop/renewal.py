"""New code for all workers of a pool, one after the other, once it has proven itself.

    new forkserver ──▶ one worker of it ──▶ probe ──▶ replace the others, one by one
          │                  │                │
          └──────────────────┴────────────────┴────▶ gone again; the others stay

The first worker of the new generation is tried outside of the pool: it takes nobody's
place and gets no job but the probe. Until it has passed, workers that die are still
replaced by those of the old generation. After that each old worker is replaced as a
recycled one is: the new one is ready before the old one takes leave of its last job.

A generation is a forkserver: a module that was imported cannot be imported anew, so new
code needs a new process to fork from.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from offloop.core.exits import ExitReason
from offloop.errors import PoolClosed, StartError
from offloop.telemetry import events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from offloop.handles import ForkserverHandle, WorkerHandle
    from offloop.supervisor import Supervisor
    from offloop.telemetry.events import Listeners

# Seconds that the first worker of a generation has to get ready, and again to pass the
# probe.
_PATIENCE = 60.0

_STAY = "the workers that there were go on with the code that they have"


class Renewal:
    """Renews the workers of one supervisor; one renewal at a time.

    Args:
        supervisor: of the pool.
        probe: asks a worker whether it is any good, and raises if it is not; None: to
            be ready is enough.
        listeners: are told how it goes.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        probe: Callable[[WorkerHandle], Awaitable[None]] | None,
        listeners: Listeners,
    ) -> None:
        self._supervisor = supervisor
        self._probe = probe
        self._listeners = listeners

    async def run(self) -> None:
        """Renew all workers, and tell of it.

        Raises:
            Exception: as of `_run`.
        """
        began = time.monotonic()
        self._listeners.tell(events.ReloadBegun)
        try:
            await self._run()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
            self._listeners.tell(events.ReloadFailed, error=text)
            raise
        self._listeners.tell(events.ReloadDone, seconds=time.monotonic() - began)

    async def _run(self) -> None:
        """Renew all workers.

        Raises:
            StartError: the new generation cannot start, or fails its probe; nothing has
                changed then. Or the pool has given up in the middle of it.
            PoolClosed: the pool was closed meanwhile.
        """
        supervisor = self._supervisor
        forkserver = supervisor.make_forkserver()
        try:
            worker = supervisor.try_worker(forkserver)
            try:
                await self._until_ready(worker)
                if self._probe is not None:
                    await self._until_passed(self._probe, worker)
            finally:
                supervisor.end_trial(worker)
        except BaseException:
            supervisor.drop_forkserver(forkserver)
            raise
        supervisor.use_forkserver(forkserver)
        await self._replace_others(forkserver)

    async def _until_ready(self, worker: WorkerHandle) -> None:
        supervisor = self._supervisor
        try:
            async with asyncio.timeout(_PATIENCE):
                while not worker.ready and worker.exit is None:
                    await supervisor.changed()
        except TimeoutError:
            raise _refused(f"its worker was not ready within {_PATIENCE:g} s") from None
        self._check_open()
        if worker.exit is not None:
            raise _refused(f"its worker {worker.exit}", worker.exit.output)
        trouble = supervisor.trouble_of(worker.forkserver)
        if trouble:
            raise _refused(trouble)

    async def _until_passed(
        self, probe: Callable[[WorkerHandle], Awaitable[None]], worker: WorkerHandle
    ) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await probe(worker)
        except Exception as error:
            self._check_open()
            text = f"the probe failed: {type(error).__name__}: {error}"
            raise _refused(text) from error

    async def _replace_others(self, forkserver: ForkserverHandle) -> None:
        """Replace one worker after the other until none of the old code is left.

        A pool that had given up, and so has no workers, gets its first one meanwhile.
        """
        supervisor = self._supervisor
        while True:
            self._check_open()
            if supervisor.gave_up:
                raise StartError(
                    "the pool gave up in the middle of a reload; workers of both "
                    f"generations go on: {supervisor.gave_up}"
                )
            others = supervisor.workers_of_others(forkserver)
            working = [worker for worker in others if supervisor.works(worker)]
            if working:  # no effect on one whose successor is starting
                supervisor.replace(working[0], ExitReason.RELOADED)
            elif not others and not supervisor.is_short:
                return
            await supervisor.changed()

    def _check_open(self) -> None:
        if self._supervisor.closing:
            raise PoolClosed("the pool was closed while it reloaded")


def _refused(what: str, output: str = "") -> StartError:
    message = f"the pool was not reloaded: {what}; {_STAY}"
    if output:
        message += f"\n{output.rstrip()}"
    return StartError(message, output=output)
