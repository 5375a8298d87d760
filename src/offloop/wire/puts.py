"""Objects that are sent once and named by number in any number of calls.

    pool.put ──▶ Ref ──(in arguments, at any depth)──▶ its number ──▶ the object

A `Ref` may only be pickled while a call of its own pool is encoded: `collecting` notes
which ones a call names, so that they stay where they are until the job has ended.
"""

from __future__ import annotations

import contextlib
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

__all__ = ["Stored", "collecting", "reduce", "set_resolver"]


class Stored:
    """Where a pool keeps an object that was put; dropped with the last reference."""

    __slots__ = ("__weakref__", "blocks", "load", "number", "owner", "tell", "what")

    def __init__(
        self, owner: object, number: int, what: str, tell: Callable[[int], object]
    ) -> None:
        #: the engine that has it
        self.owner = owner
        self.number = number
        #: type of the object, for people
        self.what = what
        #: what it lies in: the payload's block first; belongs to the engine
        self.blocks: list[Any] = []
        #: returns the object where the engine has no process border
        self.load: Callable[[], Any] | None = None
        self.tell = tell

    def __del__(self) -> None:
        # Any thread, in the middle of anything: `tell` only notes it.
        self.tell(self.number)


_local = threading.local()

#: finds an object by its number; a worker sets it
_resolver: Callable[[int], Any] | None = None


def set_resolver(resolver: Callable[[int], Any] | None) -> None:
    """Name who knows the objects that were sent to this process."""
    global _resolver
    _resolver = resolver


@contextlib.contextmanager
def collecting(owner: object) -> Iterator[list[Stored]]:
    """Note what this thread names while it pickles a call for `owner`."""
    before = getattr(_local, "scope", None)
    named: list[Stored] = []
    _local.scope = (owner, named)
    try:
        yield named
    finally:
        _local.scope = before


def reduce(stored: Stored) -> tuple[Any, ...]:
    """Return what stands for a stored object in a pickle.

    Raises:
        TypeError: nothing of its pool is being encoded.
    """
    scope = getattr(_local, "scope", None)
    if scope is None or scope[0] is not stored.owner:
        raise TypeError(
            f"a Ref to {stored.what} can only be an argument of jobs of the pool whose "
            "put() made it"
        )
    scope[1].append(stored)
    if stored.load is not None:
        return stored.load, ()
    return _find, (stored.number,)


def _find(number: int) -> Any:
    assert _resolver is not None, "only workers read calls"
    return _resolver(number)
