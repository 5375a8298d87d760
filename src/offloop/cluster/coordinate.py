"""The coordinator's process: opens the pool and the door, and waits for its end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offloop import messages, runtime
from offloop.cluster.claims import POOL_LOCK, pool_refusal
from offloop.cluster.coordinator import Coordinator
from offloop.cluster.door import Door
from offloop.cluster.locks import let_go, lock
from offloop.errors import OffloopError, StartError, UsageError
from offloop.operated import Operated
from offloop.options import PoolOptions, Recycle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from offloop.cluster.child import ChildLine

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
        memory_limit: bytes that a worker may hold; None: any number.
        recycle_jobs, recycle_age, recycle_rss: after so many jobs, seconds, or at so
            many bytes a worker is replaced by a fresh one; None: never.
    """

    compute: int | None = None
    name: str = runtime.DEFAULT_NAME
    max_pending: int = 100_000
    max_pending_per_client: int | None = None
    preload: tuple[str, ...] = ()
    memory_limit: int | str | None = None
    recycle_jobs: int | None = None
    recycle_age: float | None = None
    recycle_rss: int | str | None = None

    def options(self) -> PoolOptions:
        """Return the options of the pool.

        Raises:
            ValueError, TypeError: one of them is out of range.
        """
        given: dict[str, Any] = {}
        if self.compute is not None:
            given["max_workers"] = self.compute
        limits = (self.recycle_jobs, self.recycle_age, self.recycle_rss)
        if limits != (None, None, None):
            given["recycle"] = Recycle(*limits)
        return PoolOptions(
            max_pending=self.max_pending,
            preload=self.preload,
            memory_limit=self.memory_limit,  # type: ignore[arg-type]  # made bytes there
            name=f"shared pool {self.name}",
            **given,
        )


@contextlib.asynccontextmanager
async def open_coordinator(
    settings: PoolSettings, home: Path
) -> AsyncIterator[Coordinator]:
    """Open the shared pool of a home, whose only owner is this process.

    Raises:
        StartError: there is one already, or no worker can start.
    """
    path = home / POOL_LOCK
    descriptor = lock(path, pool_refusal(home))
    try:
        async with open_pool(settings, home / "pool.sock") as coordinator:
            yield coordinator
    finally:
        let_go(path, descriptor)
        runtime.leave_home(home)


@contextlib.asynccontextmanager
async def open_pool(settings: PoolSettings, door: Path) -> AsyncIterator[Coordinator]:
    """Open a shared pool whose workers are ready; what is pending is cancelled at last.

    Args:
        settings: of the pool.
        door: path of the socket that clients come to.

    Raises:
        StartError: no worker can start.
    """
    options = settings.options()
    coordinator = Coordinator(options)
    operated = Operated(
        coordinator, options, coordinator.listeners, None, coordinator.about
    )
    try:
        coordinator.begin()
        await coordinator.started()
        way_in = Door(door, coordinator, settings.max_pending_per_client)
        try:
            yield coordinator
        finally:
            coordinator.cancel_all()
            way_in.close()
    finally:
        operated.hang_up()
        await coordinator.close()
        await operated.close()


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


def run(line: ChildLine, settings: dict[str, Any], files: list[int]) -> None:
    """Run the coordinator of a primary until it is sent away.

    Args:
        line: to the primary.
        settings: see `Primary`.
        files: none.
    """
    pool = PoolSettings(**settings["pool"])
    try:
        asyncio.run(_obey(line, pool, Path(settings["door"])))
    except (StartError, UsageError) as error:
        print(f"the shared pool cannot start: {error}", file=sys.stderr)
        if isinstance(error, StartError) and error.output:
            print(error.output, file=sys.stderr)
        raise SystemExit(3) from None


async def _obey(line: ChildLine, settings: PoolSettings, door: Path) -> None:
    """Run a shared pool until the primary, or SIGTERM, ends it."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[float] = loop.create_future()
    tasks: set[asyncio.Task[None]] = set()

    def end(seconds: float) -> None:
        if not ended.done():
            ended.set_result(seconds)

    def told_to_go() -> None:
        line.say(messages.LEAVING, "it was sent SIGTERM")
        end(DRAIN_TIME)

    loop.add_signal_handler(signal.SIGTERM, told_to_go)
    async with open_pool(settings, door) as pool:

        def hear(kind: int, *details: Any) -> None:
            if kind == messages.RETIRE:
                end(details[0])
            elif kind == messages.RENEW:
                task = loop.create_task(_renew(pool, line))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        line.listen(hear)
        line.say(messages.READY)
        seconds = await ended
        for task in tasks:
            task.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(pool.drain(), seconds)


async def _renew(pool: Coordinator, line: ChildLine) -> None:
    """Replace all workers by such with new code, and tell how it went."""
    try:
        await pool.reload(None)
    except OffloopError as error:
        line.say(messages.RENEWED, str(error))
    else:
        line.say(messages.RENEWED, "")
