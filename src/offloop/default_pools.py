"""The default pools: one for each event loop, begun by the first call.

What `@offload` needs as soon as a function is called where no job runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from offloop.engines.choice import load_engine
from offloop.options import chosen_engine
from offloop.pool import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from offloop.options import Seconds
    from offloop.view import PoolView

#: `Pool` arguments for default pools to come
_options: dict[str, Any] = {}

#: the pool of each loop that has one, as long as its engine lives
_pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, weakref.ref[Pool]] = (
    weakref.WeakKeyDictionary()
)


def configure(options: Mapping[str, Any]) -> None:
    """Set the options of default pools to come.

    Raises:
        TypeError, ValueError: for a wrong option.
    """
    Pool(**options)  # inert: it only checks them
    _options.clear()
    _options.update(options)


def load_chosen_engine() -> None:
    """Import the engine that default pools will have."""
    load_engine(chosen_engine("local"))


def default_view(options: Mapping[str, Any]) -> PoolView:
    """Return the default pool of the running loop, seen with these job options."""
    pool = default_pool()
    return pool._with(options) if options else pool


def default_pool() -> Pool:
    """Return the default pool of the running loop; begins it if there is none."""
    loop = asyncio.get_running_loop()
    known = _pools.get(loop)
    pool = None if known is None else known()
    if pool is None or not pool.is_open:
        pool = Pool(**{"name": "default", **_options})
        pool._ends_with_loop = True
        pool._begin()
        _pools[loop] = weakref.ref(pool)
    return pool


def check(options: Mapping[str, Any]) -> None:
    """Raise what `opened` would raise for these options, without opening a pool."""
    Pool(**{**_options, **options})


@contextlib.asynccontextmanager
async def opened(
    options: Mapping[str, Any], deadline: Seconds = 30.0
) -> AsyncGenerator[Pool]:
    """Open a pool that is the default one of the running loop until it is left.

    Args:
        options: of the pool, beside those that were configured.
        deadline: seconds that its jobs have to end in, when it is left.
    """
    async with Pool(**{"name": "default", **_options, **options}) as pool:
        _pools[asyncio.get_running_loop()] = weakref.ref(pool)
        try:
            yield pool
        finally:
            await pool.stop(deadline)
