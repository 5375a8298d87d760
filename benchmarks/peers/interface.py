"""What a measurement may ask of every peer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable


class CannotDo(Exception):
    """This peer cannot run this case; the reason is the message."""


class Peer:
    """One way to run functions elsewhere, and to await what they return.

    `call` is a plain function that returns something to await, so that nothing of ours
    stands between a measurement and the peer; many set it to their own method.
    """

    #: does one batch at a time, so that calls one by one would be unfair to it
    batches: ClassVar[bool] = False

    #: has processes, which have memory and can be killed
    processes: ClassVar[bool] = True

    #: under which it is registered
    name: ClassVar[str] = ""

    #: seconds that importing it took
    import_seconds: ClassVar[float] = 0.0

    def __init__(self, workers: int) -> None:
        self.workers = workers

    async def start(self) -> None:
        """Make the pool, with so many workers, at the settings that suit it best."""

    async def ready(self) -> None:
        """Wait until the workers are there, if the peer can say so."""

    def call(self, function: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        """Run one job."""
        raise NotImplementedError

    def submit(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future:
        """Start one job at once, in the thread of the loop."""
        return asyncio.ensure_future(self.call(function, *arguments))

    async def gather(self, function: Callable[..., Any], items: Iterable) -> list:
        """Run one job for each item, all at once."""
        return await asyncio.gather(*[self.call(function, item) for item in items])

    async def map(self, function: Callable[..., Any], items: list) -> list:
        """Run a function on many small items, as this peer does that best."""
        raise CannotDo("has no map")

    def call_within(
        self, seconds: float, function: Callable[..., Any], *arguments: Any
    ) -> Awaitable[Any]:
        """Run one job, and stop it when the time is over, if there is a way to."""
        return asyncio.wait_for(self.call(function, *arguments), seconds)

    async def close(self) -> None:
        """End all that was started."""

    async def __aenter__(self) -> Peer:
        await self.start()
        await self.ready()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()


def chunk(items: list, workers: int) -> int:
    """Return the chunk size at which the pools with chunks map small items fastest.

    Four chunks a worker, as `multiprocessing.Pool` chooses for itself: fewer leave
    workers idle at the end, more cost messages.
    """
    return max(1, len(items) // (workers * 4))
