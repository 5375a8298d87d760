"""How tests of large payloads wait: for turns of the loop, for answers of workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from offloop import Pool


def used(pool: Pool) -> int:
    """Return the bytes of a pool's memory for arguments that are in use."""
    return pool._engine._memory.arena.used


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so that happens in one of its turns."""
    while not condition():  # noqa: ASYNC110 - a turn is all that it takes
        await asyncio.sleep(0)


async def given_back(pool: Pool, most: int = 0) -> None:
    """Run jobs until no more than `most` bytes are in use.

    Each answer brings along what its worker looks at no more.
    """
    while used(pool) > most:
        await pool.run(jobs.add, 1, 2)
