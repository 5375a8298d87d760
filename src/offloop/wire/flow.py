"""How far a generator may run ahead of its consumer, counted at both ends.

    worker      Allowance: spent by each part, refilled by what was taken
                     │ parts                          ▲ parts and bytes
                     ▼                                │
    parent      Takings: what was taken, told when it is worth a message

A part is spent when it is yielded, and comes back when the consumer asks for the one
after it. Both bounds hold at once: the last part may go beyond that of bytes, so that
one of any size can pass.

This module counts, and never waits or sends.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: parts that a generator may be ahead by default; more of them make short ones no
#: faster, and fewer make it wait for the consumer's word
PARTS_AHEAD = 256

#: bytes that it may be ahead: enough for a large part to be made while another is read
BYTES_AHEAD = 32 * 1024 * 1024

# Without a limit, for a generator that nobody listens to any more.
_ENDLESS = 1 << 62

_SIZED = frozenset({str, bytes})


class Allowance:
    """What a generator may still yield before it waits.

    Args:
        parts: that it may be ahead of its consumer.
    """

    __slots__ = ("parts", "size")

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self.size = BYTES_AHEAD

    @property
    def spent(self) -> bool:
        """True while the generator must wait."""
        return self.parts <= 0 or self.size <= 0

    def spend(self, size: int) -> None:
        """Count one part of so many bytes."""
        self.parts -= 1
        self.size -= size

    def refill(self, parts: int, size: int) -> None:
        """Count what the consumer has taken."""
        self.parts += parts
        self.size += size


class Takings:
    """What a consumer has taken and nobody was told of.

    Args:
        parts: that the generator may be ahead.
    """

    __slots__ = ("_ahead", "_parts", "_size")

    def __init__(self, parts: int) -> None:
        self._ahead = parts
        self._parts = 0
        self._size = 0

    def take(self, parts: int, size: int) -> tuple[int, int] | None:
        """Count what was taken.

        Returns:
            The parts and bytes to be told now, if it is time: a generator that waits
            has half of its allowance back then, and goes on for a while.
        """
        self._parts += parts
        self._size += size
        if 2 * self._parts < self._ahead and 2 * self._size < BYTES_AHEAD:
            return None
        told = self._parts, self._size
        self._parts = self._size = 0
        return told


def endless() -> tuple[int, int]:
    """Return the parts and bytes that let a generator run to its end."""
    return _ENDLESS, _ENDLESS


def check(made: Any, name: str) -> None:
    """Refuse what a function returned that has no parts.

    Raises:
        TypeError: it is no iterator.
    """
    if not hasattr(made, "__next__"):
        raise TypeError(
            f"{name} was called by `stream`, so it must be a generator function, or "
            f"return an iterator; it returned {type(made).__qualname__}"
        )


def size_of(payload: bytes | bytearray | tuple[Any, ...]) -> int:
    """Return about how many bytes a small part takes."""
    if type(payload) is tuple:
        value = payload[0]
        return len(value) if type(value) in _SIZED else 8
    return len(payload)
