"""Start, ten jobs, close, again and again: nothing accumulates.

The suite repeats it a few times; ``make repetitions`` a thousand times.
"""

from __future__ import annotations

import asyncio
import os
import warnings

import pytest

import jobs
import leaks
from offloop import Pool

REPETITIONS = int(os.environ.get("OFFLOOP_REPETITIONS", "10"))


async def once() -> None:
    async with Pool(2) as pool:
        results = await asyncio.gather(*(pool.run(jobs.add, n, n) for n in range(10)))
    assert results == [2 * n for n in range(10)]


@pytest.mark.timeout(30 + REPETITIONS)
def test_nothing_accumulates(runtime):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(once())
        before = leaks.take(runtime)
        for _ in range(REPETITIONS):
            asyncio.run(once())
            assert leaks.find(before, runtime) == []


@pytest.mark.timeout(30 + REPETITIONS)
async def test_nothing_accumulates_in_one_loop(runtime):
    await once()
    before = leaks.take(runtime)
    for _ in range(REPETITIONS):
        await once()
        assert leaks.find(before, runtime) == []
