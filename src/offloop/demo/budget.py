"""How much memory uploads may take together.

Each upload is limited by itself; this is for many at once. What is held belongs to one
request, grows as its body arrives, and is given back when the request ends.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from offloop.demo.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Budget", "Hold"]


class Budget:
    """Bytes that all requests together may hold.

    Args:
        limit: how many.
        retry_after: tells when there may be room again, in whole seconds.
    """

    def __init__(self, limit: int, retry_after: Callable[[], int]) -> None:
        self._limit = limit
        self._retry_after = retry_after
        #: bytes held now, at most the limit
        self.used = 0

    @contextmanager
    def hold(self) -> Iterator[Hold]:
        """Return what counts the bytes of one request; its end gives them back."""
        hold = Hold(self)
        try:
            yield hold
        finally:
            self.used -= hold.size

    def take(self, size: int) -> None:
        """Count bytes as held.

        Raises:
            Problem: 429 when there are too many.
        """
        if self.used + size > self._limit:
            raise Problem(
                429,
                "The uploads under way fill the memory set aside for them; try again "
                "later.",
                headers={"Retry-After": str(self._retry_after())},
            )
        self.used += size


class Hold:
    """The bytes of one request."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.size = 0

    def grow(self, size: int) -> None:
        """Count more bytes.

        Raises:
            Problem: 429 when all requests together hold too many.
        """
        self._budget.take(size)
        self.size += size
