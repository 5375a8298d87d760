"""Runs a whole program whose pools end in order when it is told to end."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import TYPE_CHECKING, Any, TypeVar

from offloop.lifecycle import open_pools
from offloop.options import Seconds, seconds
from offloop.signals import Endings

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["run"]

T = TypeVar("T")


def run(
    main: Coroutine[Any, Any, T],
    *,
    deadline: Seconds = 30.0,
    debug: bool | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run a program as `asyncio.run` does, and end it in order when a signal asks.

    SIGTERM drains: pools take nothing new and finish what they have; then `main` is
    cancelled. Ctrl-C cancels `main` at once; leaving ``async with Pool()`` then stops
    what runs. A second signal of either kind kills all workers and cancels `main`.

    Servers such as uvicorn handle signals by themselves: run those as they want it.

    Args:
        main: the coroutine of the program.
        deadline: seconds that draining may take.
        debug: as of `asyncio.run`.
        loop_factory: makes the event loop, such as `uvloop.new_event_loop`.

    Returns:
        What `main` returned.

    Raises:
        SystemExit: with 143, if SIGTERM has ended it.
        KeyboardInterrupt: if Ctrl-C has.
    """
    limit = seconds("deadline", deadline, least=0.0)
    if not asyncio.iscoroutine(main):
        raise ValueError(f"a coroutine was expected, got {main!r}")
    endings: list[Endings] = []

    async def guarded() -> T:
        task = asyncio.current_task()
        assert task is not None
        ending = Endings(task, open_pools, limit)
        endings.append(ending)
        if threading.current_thread() is not threading.main_thread():
            return await main  # signals are not for this thread
        with ending.handling():
            return await main

    with asyncio.Runner(debug=debug, loop_factory=loop_factory) as runner:
        try:
            return runner.run(guarded())
        except asyncio.CancelledError:
            received = endings[0].received
            if received is signal.SIGTERM:
                raise SystemExit(128 + received) from None
            if received is signal.SIGINT:
                raise KeyboardInterrupt from None
            raise
