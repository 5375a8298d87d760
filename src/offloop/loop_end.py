"""The end of an event loop, for what must end with it.

`asyncio.run`, `asyncio.Runner`, uvicorn and others end by `loop.shutdown_asyncgens`,
which closes all asynchronous generators that were begun and awaits their `finally`: the
only hook that a loop offers for that moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable


def at_loop_end(act: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
    """Have something awaited when the running loop ends.

    Args:
        act: called then, and also when the generator is closed or collected before.

    Returns:
        A generator, to be kept for as long as this shall hold.
    """

    async def keeper() -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await act()

    generator = keeper()
    try:
        generator.asend(None).send(None)
    except StopIteration:  # it has reached its yield
        return generator
    raise AssertionError("unreachable: a generator yields or returns")
