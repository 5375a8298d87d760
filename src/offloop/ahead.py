"""Keeps some jobs going ahead of a consumer: what `map` is made of.

It never takes more items than asked for, so endless iterables work, and it cancels what
it took when its consumer leaves early.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Iterator

    from offloop.engines.base import Engine, Job
    from offloop.options import JobOptions


async def results_ahead(
    engine: Engine,
    fn: Callable[..., Any],
    items: Iterable[tuple[Any, ...]],
    options: JobOptions,
    *,
    chunksize: int,
    ahead: int,
    ordered: bool,
) -> AsyncGenerator[Any]:
    """Yield ``fn(*item)`` for each item, with up to `ahead` jobs of a chunk each going.

    Raises:
        Exception: what the first failing item raised; the rest is cancelled.
    """
    going: deque[Job[list[Any]]] = deque()
    chunks = _chunks(items, chunksize)
    try:
        while True:
            for chunk in islice(chunks, ahead - len(going)):
                job = await engine.submit_in_turn(fn, (chunk,), {}, options, many=True)
                going.append(job)
            if not going:
                return
            if not ordered:
                await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
                _bring_forward(going)
            results = await going[0]
            going.popleft()
            for result in results:
                yield result
    finally:
        for job in going:
            job.cancel()


def _chunks(
    items: Iterable[tuple[Any, ...]], size: int
) -> Iterator[list[tuple[Any, ...]]]:
    source = iter(items)
    while chunk := list(islice(source, size)):
        yield chunk


def _bring_forward(going: deque[Job[list[Any]]]) -> None:
    """Put a job that has ended first."""
    for index, job in enumerate(going):
        if job.done():
            going.rotate(-index)
            return
