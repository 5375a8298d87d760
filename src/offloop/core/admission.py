"""Whether one more job may come: so many may be pending, and so many bytes of them.

It counts nothing itself and refuses by an error that says when to try again. Who comes
first, and what becomes of a job, is not known here.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from offloop.errors import PoolFull

if TYPE_CHECKING:
    from offloop.core.ledger import Ledger


class Admission:
    """The limits of what may be pending.

    Args:
        ledger: counts what is.
        most: jobs that may be pending; None for any number.
        most_bytes: bytes of pending jobs from which none is taken; None for any number.
    """

    __slots__ = ("_ledger", "_most", "_most_bytes", "most")

    def __init__(
        self, ledger: Ledger, most: int | None, most_bytes: int | None
    ) -> None:
        self._ledger = ledger
        self._most = most
        self._most_bytes = most_bytes
        #: jobs that may be pending, as a number that is always there
        self.most = sys.maxsize if most is None else most

    @property
    def counts_bytes(self) -> bool:
        """True if jobs are refused because of their bytes."""
        return self._most_bytes is not None

    @property
    def room(self) -> int:
        """Number of jobs that would certainly be accepted now, one after the other."""
        ledger = self._ledger
        room = self.most - len(ledger.jobs)
        if self._most_bytes is None:
            return room
        return min(room, int(ledger.size < self._most_bytes))

    def check(self, now: float, elsewhere: int = 0) -> None:
        """Refuse a job that comes now, if there is no room for it.

        Args:
            now: the time.
            elsewhere: jobs that are on their way here, and count as well.

        Raises:
            PoolFull: as many jobs, or bytes of jobs, are pending as may be.
        """
        count, size = len(self._ledger.jobs) + elsewhere, self._ledger.size
        most, most_bytes = self._most, self._most_bytes
        what = f"{count:,} jobs are pending"
        if most is not None and count >= most:
            pending, limit, word = count, most, "max_pending"
        elif most_bytes is not None and size >= most_bytes:
            pending, limit, word = size, most_bytes, "max_pending_bytes"
            what += f" with {size:,} bytes"
        else:
            return
        wait = self._ledger.drain.next_end(now)
        raise refusal(what, word, pending, limit, wait)


def refusal(
    what: str, word: str, pending: int, limit: int, wait: float | None
) -> PoolFull:
    """Return the error of a job for which there is no room.

    Args:
        what: what is pending, in words.
        word: the option that limits it.
        pending: jobs or bytes that are.
        limit: so many may be.
        wait: seconds until one ends, as far as one can know.
    """
    hint = "" if wait is None else f" in about {wait:.3g} s"
    return PoolFull(
        f"{what} and {word} is {limit:,}; the job was not queued. Try again{hint}, "
        f"when one has ended, or raise {word}.",
        pending=pending,
        limit=limit,
        retry_after=wait,
    )
