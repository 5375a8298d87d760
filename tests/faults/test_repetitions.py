"""Start, ten jobs, close, again and again: nothing accumulates.

The suite repeats it a few times; ``make repetitions`` a thousand times.
"""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from pathlib import Path

import psutil
import pytest

import jobs
from offloop import Pool

REPETITIONS = int(os.environ.get("OFFLOOP_REPETITIONS", "10"))


async def once() -> None:
    async with Pool(2) as pool:
        results = await asyncio.gather(*(pool.run(jobs.add, n, n) for n in range(10)))
    assert results == [2 * n for n in range(10)]


def belongings(folder: str) -> dict[str, object]:
    """Return what this process and its pools could have left behind."""
    shared = Path("/dev/shm")
    return {
        "processes": {child.pid for child in psutil.Process().children(recursive=True)},
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "files": sorted(os.listdir(folder)),
        "shared": sorted(os.listdir(shared)) if shared.is_dir() else [],
    }


@pytest.mark.timeout(30 + REPETITIONS)
def test_nothing_accumulates(runtime):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(once())
        before = belongings(runtime)
        for _ in range(REPETITIONS):
            asyncio.run(once())
            assert belongings(runtime) == before


@pytest.mark.timeout(30 + REPETITIONS)
async def test_nothing_accumulates_in_one_loop(runtime):
    await once()
    before = belongings(runtime)
    for _ in range(REPETITIONS):
        await once()
        assert belongings(runtime) == before
