"""Those who operate a pool from outside, for tests that have it in their own loop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offloop import operated
from offloop.control import Line
from waiting import until

if TYPE_CHECKING:
    from offloop import Pool


def socket_of(pool: Pool) -> Path:
    """Return where the control socket of a pool is, or will be."""
    return Path(pool._engine.home, operated.NAME)


async def line_to(pool: Pool) -> Line:
    """Return a connection to a pool, as soon as it listens; see `soon`."""
    await until(lambda: pool._engine.home and socket_of(pool).exists())
    return await asyncio.to_thread(Line, socket_of(pool), 60.0)


async def ask(pool: Pool, command: str, **details: Any) -> dict[str, Any]:
    """Return the answer to one request."""
    with await line_to(pool) as line:
        return await asyncio.to_thread(line.ask, command, **details)
