"""How tests wait where nobody tells: by asking again, or by letting others go on."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import TYPE_CHECKING, TypeVar

import jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from offloop import Pool

Answer = TypeVar("Answer")

#: seconds after which it is no use to ask again
PATIENCE = 60.0


def poll(question: Callable[[], Answer], pause: float = 0.01) -> Answer:
    """Ask again and again, with pauses, until the answer is true; returns that answer.

    It is for what no event tells of: what another program makes of its files, say.
    """
    deadline = time.monotonic() + PATIENCE
    while not (answer := question()):
        if time.monotonic() > deadline:
            asked = inspect.getsource(question).strip()
            raise TimeoutError(f"{answer!r} for {PATIENCE:g} s: {asked}")
        time.sleep(pause)
    return answer


def used(pool: Pool) -> int:
    """Return the bytes of a pool's memory for arguments that are in use."""
    return pool._engine._memory.arena.used


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so that happens in one of its turns."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - a turn is all that it takes
            await asyncio.sleep(0)


async def given_back(pool: Pool, most: int = 0) -> None:
    """Run jobs until no more than `most` bytes are in use.

    Each answer brings along what its worker looks at no more.
    """
    while used(pool) > most:
        await pool.run(jobs.add, 1, 2)
