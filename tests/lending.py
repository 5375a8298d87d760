"""Pools that tests borrow one after the other: a start takes longer than most tests.

    async def test_something(lend):
        async with lend(2) as pool:
            ...

Tests that ask for `lend` run in one loop, in which a pool of each size lives on. What
they get knows functions already, and its figures are not zero. They give it back idle,
with the workers that it had: who stops, loses or changes workers, or gives options to a
pool, opens one of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import jobs
import leaks
import waiting
from offloop import Pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

# What a pool opens once, when it needs it, is no leak of the test that is the first.
_LARGE = 3_000_000


class Lender:
    """Has pools, and the loop in which they are lent."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(debug=False)
        self._pools: dict[int, Pool] = {}
        self._forkservers: dict[int, int] = {}

    def prepare(self, sizes: tuple[int, ...] = (1, 2)) -> None:
        """Open what is not there yet, or was lent to a test that failed."""
        for size in sizes:
            if size not in self._pools:
                self._runner.run(self._open(size))

    def run(self, test: Coroutine[Any, Any, None]) -> None:
        """Run a test; it must leave no task behind."""
        self._runner.run(self._tidy(test))

    async def _tidy(self, test: Coroutine[Any, Any, None]) -> None:
        before = asyncio.all_tasks()
        await test
        left = asyncio.all_tasks() - before
        assert not left, f"the test has left tasks: {left}"

    @contextlib.asynccontextmanager
    async def __call__(self, size: int = 1) -> AsyncIterator[Pool]:
        """Lend a pool with so many workers, 1 or 2."""
        pool = self._pools.pop(size)
        try:
            started = pool.stats().workers_started
            yield pool
            await waiting.until(lambda: not pool.stats().pending)
            after = pool.stats()
            assert after.workers == size, "it is not given back"
            assert after.workers_started == started, "it has lost or changed workers"
        except BaseException:
            await self._close(size, pool)
            raise
        self._pools[size] = pool

    async def _open(self, size: int) -> None:
        pool = await Pool(size, name=f"lent-{size}", control=False).start()
        await pool.ready()
        large = bytes(_LARGE)
        await asyncio.gather(*(pool.run(jobs.echo, large) for _ in range(2 * size)))
        del large
        forkserver = psutil.Process(await pool.run(jobs.pid)).ppid()
        leaks.shared.add(forkserver)
        self._forkservers[size] = forkserver
        self._pools[size] = pool

    async def _close(self, size: int, pool: Pool) -> None:
        leaks.shared.discard(self._forkservers.pop(size))
        await pool.close()

    async def _close_all(self) -> None:
        for size, pool in self._pools.items():
            await self._close(size, pool)

    def close(self) -> None:
        """Close all pools and the loop."""
        self._runner.run(self._close_all())
        self._runner.close()


@pytest.fixture(scope="session")
def lender(runtime: str) -> Iterator[Lender]:
    """Return what lends pools as long as the session lasts."""
    one = Lender()
    yield one
    one.close()


@pytest.fixture
def lend(lender: Lender) -> Lender:
    """Return what lends pools that are there."""
    lender.prepare()
    return lender
