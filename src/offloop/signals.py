"""What signals that ask a program to end do to its pools.

    SIGTERM             drain all pools, then cancel the main task
    SIGINT (Ctrl-C)     cancel the main task, whose pools then close in order
    a second of either  kill all pools, then cancel the main task

Handlers are only set where the program asks for it (`offloop.run`): servers such as
uvicorn have their own, and end their pools in order when these come.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from offloop.lifecycle import Lifecycle


class Endings:
    """Ends one main task and its pools as signals ask for it.

    Args:
        task: the main one.
        pools: returns those that are open.
        deadline: seconds that a drain may take.
    """

    def __init__(
        self,
        task: asyncio.Task[Any],
        pools: Callable[[], Iterable[Lifecycle]],
        deadline: float,
    ) -> None:
        self._task = task
        self._pools = pools
        self._deadline = deadline
        #: the first signal that came; None before
        self.received: signal.Signals | None = None
        #: what has been begun, so that it is not collected before its end
        self._begun: list[asyncio.Task[None]] = []

    @contextlib.contextmanager
    def handling(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM meanwhile; in the main thread only."""
        loop = asyncio.get_running_loop()
        before = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
        try:
            for one in before:
                loop.add_signal_handler(one, self._came, one)
            yield
        finally:
            for one, handler in before.items():
                loop.remove_signal_handler(one)
                signal.signal(one, handler)

    def _came(self, which: signal.Signals) -> None:
        if self.received is not None:
            self._begin(False)
        else:
            self.received = which
            if which is signal.SIGTERM:
                self._begin(True)
            else:
                self._task.cancel()

    def _begin(self, patient: bool) -> None:
        self._begun.append(asyncio.ensure_future(self._end(patient)))

    async def _end(self, patient: bool) -> None:
        ends = [
            pool.stop(self._deadline) if patient else pool.kill()
            for pool in self._pools()
        ]
        await asyncio.gather(*ends, return_exceptions=True)
        self._task.cancel()
