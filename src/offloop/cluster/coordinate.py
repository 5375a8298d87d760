"""The coordinator's process: opens the pool and the door, and waits for its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from offloop import runtime
from offloop.cluster.coordinator import Coordinator
from offloop.cluster.door import Door
from offloop.options import PoolOptions

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

# Seconds that running jobs get when the coordinator was asked to end.
DRAIN_TIME = 10.0


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """What a shared pool is made of.

    Attributes:
        compute: workers; None: usable cores less one.
        name: by which clients find it.
        max_pending: jobs of all clients together that may be pending.
        max_pending_per_client: the same for each of them; None: as many.
        preload: modules to import before the first worker is forked.
    """

    compute: int | None = None
    name: str = runtime.DEFAULT_NAME
    max_pending: int = 100_000
    max_pending_per_client: int | None = None
    preload: tuple[str, ...] = ()

    def options(self) -> PoolOptions:
        """Return the options of the pool.

        Raises:
            ValueError, TypeError: one of them is out of range.
        """
        given: dict[str, Any] = {}
        if self.compute is not None:
            given["max_workers"] = self.compute
        return PoolOptions(
            max_pending=self.max_pending,
            preload=self.preload,
            name=f"shared pool {self.name}",
            **given,
        )


@contextlib.asynccontextmanager
async def open_coordinator(
    settings: PoolSettings, home: Path
) -> AsyncIterator[Coordinator]:
    """Open a shared pool whose workers are ready; what is pending is cancelled at last.

    Raises:
        StartError: there is one already, or no worker can start.
    """
    coordinator = Coordinator(settings.options())
    try:
        coordinator.begin()
        await coordinator.started()
        limit = settings.max_pending_per_client
        door = Door(home, coordinator, limit)
        try:
            yield coordinator
        finally:
            coordinator.cancel_all()
            door.close()
    finally:
        await coordinator.close()
        runtime.leave_home(home)


async def coordinate(
    settings: PoolSettings, home: Path, ready: Callable[[], None]
) -> None:
    """Run a shared pool until SIGTERM or SIGINT; jobs get DRAIN_TIME to end then.

    Args:
        settings: of the pool.
        home: directory of this user alone, for its sockets.
        ready: called when clients can come.

    Raises:
        StartError: it cannot begin.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with open_coordinator(settings, home) as coordinator:
        ready()
        await ended.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(coordinator.drain(), DRAIN_TIME)
