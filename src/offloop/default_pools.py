"""The default pools of each event loop, begun by the first call.

What `@offload` needs as soon as a function is called where no job runs: one pool, and
one more for each engine that a function names.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING, Any

from offloop.engines.choice import load_engine
from offloop.engines.terms import without_processes
from offloop.options import chosen_engine
from offloop.pool import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping

    from offloop.options import Seconds
    from offloop.view import PoolView

#: `Pool` arguments for default pools to come
_options: dict[str, Any] = {}

#: the pools of each loop that has some, by the engine that functions name, "" if they
#: name none; each as long as its engine lives
_pools: weakref.WeakKeyDictionary[
    asyncio.AbstractEventLoop, dict[str, weakref.ref[Pool]]
] = weakref.WeakKeyDictionary()

#: the next loop that needs a pool begins this one, if it is new; None: there is none
_stand_in: Pool | None = None


def configure(options: Mapping[str, Any]) -> None:
    """Set the options of default pools to come.

    Raises:
        TypeError, ValueError: for a wrong option.
    """
    Pool(**options)  # inert: it only checks them
    _options.clear()
    _options.update(options)


def load_chosen_engine(engine: str | None = None) -> None:
    """Import the engine that default pools will have, or the one that is named.

    Raises:
        ValueError: there is no such engine.
    """
    load_engine(chosen_engine(engine or "local"))


def default_view(options: Mapping[str, Any]) -> PoolView:
    """Return the default pool of the running loop, seen with these job options.

    Args:
        options: of the job, and perhaps the "engine" that it must have.
    """
    if "engine" not in options:
        pool = default_pool()
        return pool._with(options) if options else pool
    options = dict(options)
    pool = default_pool(options.pop("engine"))
    return pool._with(options) if options else pool


def default_pool(engine: str | None = None) -> Pool:
    """Return the default pool of the running loop; begins it if there is none.

    Args:
        engine: where its jobs must run; None: where it was configured.
    """
    loop = asyncio.get_running_loop()
    pools = _pools.get(loop)
    known = None if pools is None else pools.get(engine or "")
    pool = None if known is None else known()
    if pool is None or not pool.is_open:
        stand_in = _stand_in
        if engine is None and stand_in is not None and stand_in.is_new:
            pool = stand_in
        else:
            pool = Pool(**_options_of(engine))
            pool._ends_with_loop = True
        pool._begin()
        _keep(pool, engine)
    return pool


def _options_of(engine: str | None) -> dict[str, Any]:
    """Return what was configured, as far as an engine can have it."""
    options = {"name": "default", **_options}
    if engine:
        if engine == "thread":
            for word in without_processes():
                options.pop(word, None)
        kind = engine.partition("://")[0]
        options |= {"engine": engine, "name": f"{options['name']}-{kind}"}
    return options


def _keep(pool: Pool, engine: str | None = None) -> None:
    """Let a pool be the default one of the running loop, for an engine or for all."""
    loop = asyncio.get_running_loop()
    _pools.setdefault(loop, {})[engine or ""] = weakref.ref(pool)


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
        _keep(pool)
        try:
            yield pool
        finally:
            await pool.stop(deadline)


def adopt(pool: Pool) -> None:
    """Make an open pool the default one of its loop, which is running."""
    _keep(pool, None)


@contextlib.contextmanager
def changed(options: Mapping[str, Any]) -> Generator[None]:
    """Add to the options of default pools, and take all changes back afterwards.

    Raises:
        TypeError, ValueError: for a wrong option.
    """
    check(options)
    before = dict(_options)
    _options.update(options)
    try:
        yield
    finally:
        _options.clear()
        _options.update(before)


@contextlib.contextmanager
def standing_in(pool: Pool) -> Generator[None]:
    """Let the next loop that needs a default pool begin this one."""
    global _stand_in
    before, _stand_in = _stand_in, pool
    try:
        yield
    finally:
        _stand_in = before


def options() -> dict[str, Any]:
    """Return the options that default pools to come will have."""
    return dict(_options)
