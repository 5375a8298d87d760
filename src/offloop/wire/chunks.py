"""Many items as one job: a chunk of what is given to `map`.

    rows, spread, go_on ──▶ run ──▶ results, or Mixed(results, failures) ──▶ encode

Each item may fail by itself: what the others have returned is not lost. It knows
neither jobs nor sockets; a worker and the inline engine call it for jobs that carry a
chunk.
"""

from __future__ import annotations

from functools import partial
from types import CoroutineType

from offloop.errors import JobInterrupted, ResultNotEncodable
from offloop.wire import codec
from offloop.wire.failures import encode_error

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs a worker milliseconds at start
    from collections.abc import Awaitable, Callable
    from typing import Any

__all__ = ["Mixed", "encode", "run", "run_async"]


class Mixed:
    """What a chunk gave in which items have failed.

    Args:
        results: of the items in order; None for one that failed. It ends with the first
            failure if the chunk was not to go on.
        failures: errors by the item's place in the chunk, encoded where they travel.
    """

    __slots__ = ("failures", "results")

    def __init__(self, results: list[Any], failures: dict[int, Any]) -> None:
        self.results = results
        self.failures = failures

    def __reduce__(self) -> tuple[Any, ...]:
        return Mixed, (self.results, self.failures)


def run(
    function: Callable[..., Any],
    chunk: tuple[Any, ...],
    *,
    finish: Callable[[CoroutineType[Any, Any, Any]], Any],
    job_id: int,
    name: str,
    keep: Callable[..., Any] = encode_error,
) -> list[Any] | Mixed:
    """Call a function with each item of a chunk.

    Args:
        function: what to call.
        chunk: the first argument of all calls, if there is one; the items; True if each
            is a tuple of arguments, and not the only one; True to go on after an item
            that fails.
        finish: runs a coroutine that the function has returned, and gives its result.
        job_id: number of the job, for errors.
        name: of the function, for errors.
        keep: makes of an error what stands for it in `Mixed`.

    Returns:
        The results, if no item has failed.

    Raises:
        JobInterrupted: as the function lets it pass.
    """
    *front, rows, spread, go_on = chunk
    if front:
        function = partial(function, *front)
    results: list[Any] = []
    failures: dict[int, Any] = {}
    for row in rows:
        try:
            value = function(*row) if spread else function(row)
            if type(value) is CoroutineType:
                value = finish(value)
        except JobInterrupted:
            raise
        except BaseException as error:
            failures[len(results)] = keep(error, job_id=job_id, function=name)
            value = None
            if not go_on:
                results.append(value)
                break
        results.append(value)
    return Mixed(results, failures) if failures else results


async def run_async(
    function: Callable[..., Awaitable[Any]],
    chunk: tuple[Any, ...],
    *,
    job_id: int,
    name: str,
) -> list[Any] | Mixed:
    """Do the same in a loop that runs already; a cancellation ends it."""
    *front, rows, spread, go_on = chunk
    if front:
        function = partial(function, *front)
    results: list[Any] = []
    failures: dict[int, bytes] = {}
    for row in rows:
        value = None
        try:
            value = await (function(*row) if spread else function(row))
        except Exception as error:
            failures[len(results)] = encode_error(error, job_id=job_id, function=name)
            if not go_on:
                results.append(value)
                break
        results.append(value)
    return Mixed(results, failures) if failures else results


def encode(value: list[Any] | Mixed, name: str) -> tuple[Any, list[Any]]:
    """Turn what a chunk gave into a payload and its large buffers.

    A result that cannot travel becomes a failure of its item.
    """
    try:
        return codec.encode_result(value, name)
    except ResultNotEncodable:
        mixed = value if isinstance(value, Mixed) else Mixed(value, {})
        kept, failures = list(mixed.results), dict(mixed.failures)
        for place, result in enumerate(kept):
            try:
                codec.encode_result(result, name)
            except ResultNotEncodable as error:
                failures[place] = encode_error(error, job_id=None, function=name)
                kept[place] = None
        return codec.encode_result(Mixed(kept, failures), name)
