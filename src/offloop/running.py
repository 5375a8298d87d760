"""How a worker runs a call that has more to it than a function and its arguments.

In its caller's context, for each item of a list, as a coroutine, or as a generator. It
knows no socket: what a generator yields is its worker's business.
"""

from __future__ import annotations

from types import CoroutineType

from offloop.wire import carried, chunks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def run_fully(
    function: Callable[..., Any],
    args: Any,
    kwargs: Any,
    call: tuple[Any, ...],
    name: str,
    stream: Callable[[tuple[Any, ...], str, Callable[[], Any]], Any],
) -> Any:
    """Run a call that has its caller's context, many items, or many results."""

    def run() -> Any:
        if call[6] is not True and call[6]:
            return stream(call, name, lambda: function(*args, **kwargs))
        if call[6]:
            finish = run_coroutine
            return chunks.run(function, args, finish=finish, job_id=call[0], name=name)
        value = function(*args, **kwargs)
        return run_coroutine(value) if type(value) is CoroutineType else value

    if not call[7]:
        return run()
    try:
        return carried.restored(call[7]).run(run)
    finally:
        carried.let_go()


def run_coroutine(coroutine: CoroutineType[Any, Any, Any]) -> Any:
    """Run a coroutine in an event loop of its own; returns its result."""
    import asyncio

    return asyncio.run(coroutine)
