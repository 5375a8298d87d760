"""What each server has to do right now, for all of them to see, without a message.

    seat      0         1         2
    server ──▶ ...   server ──▶ ...      each writes its own row and reads the others'

One page of shared memory holds a row of counters for each server. A row has one
writer, so there is no lock; a reader may see a figure that is a moment old, and nothing
worse comes of it than a connection that another server could have had.
"""

from __future__ import annotations

import enum
import mmap
import os

#: servers that there may be at once, those that are about to go included
SEATS = 511

_ROW = 8  # counters
_SIZE = (SEATS + 1) * _ROW * 8  # bytes; the last row is not a server's


class Field(enum.IntEnum):
    """A counter of a row."""

    #: 1 while the server takes new connections
    OPEN = 0
    #: requests that it has in hand, and connections that have not sent one yet
    WORK = 1
    #: connections that it has taken, ever; a newcomer begins with what others have
    TAKEN = 2
    #: requests that it has answered
    ANSWERED = 3
    #: connections that are open
    CONNECTIONS = 4
    #: bytes that it held when it last looked
    MEMORY = 5
    #: requests that it has turned away because it had too many
    SHED = 6


def make_page() -> int:
    """Return the descriptor of a new page, which every server gets."""
    descriptor = os.memfd_create("offloop-loads", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, _SIZE)
    return descriptor


class Loads:
    """The page, as one process sees it.

    Args:
        descriptor: of the page; stays the caller's.
    """

    def __init__(self, descriptor: int) -> None:
        self._mapped = mmap.mmap(descriptor, _SIZE)
        #: all counters, row after row
        self.cells = memoryview(self._mapped).cast("Q")

    def close(self) -> None:
        self.cells.release()
        self._mapped.close()

    def cell(self, seat: int, field: Field) -> int:
        """Return where a counter is among `cells`."""
        return seat * _ROW + int(field)

    def read(self, seat: int, field: Field) -> int:
        return self.cells[seat * _ROW + field]

    def write(self, seat: int, field: Field, value: int) -> None:
        self.cells[seat * _ROW + field] = value

    def add(self, seat: int, field: Field, change: int = 1) -> None:
        self.cells[seat * _ROW + field] += change

    def clear(self, seat: int) -> None:
        """Forget who sat here."""
        for field in range(_ROW):
            self.cells[seat * _ROW + field] = 0

    def sit_down(self, seat: int) -> None:
        """Begin to take connections; it is not a newcomer's turn until all are even."""
        cells = self.cells
        taken = [cells[row + Field.TAKEN] for row in self._open_rows()]
        self.write(seat, Field.TAKEN, max(taken, default=0))
        self.write(seat, Field.OPEN, 1)

    def ahead_of(self, seat: int) -> int:
        """Return how many servers should rather take a connection than this one.

        Those with less in hand; among equals those that have taken fewer.
        """
        cells = self.cells
        own = seat * _ROW
        work, taken = cells[own + Field.WORK], cells[own + Field.TAKEN]
        return sum(
            (cells[row + Field.WORK], cells[row + Field.TAKEN]) < (work, taken)
            for row in self._open_rows()
        )

    def _open_rows(self) -> list[int]:
        cells = self.cells
        last = cells[-1]  # seats in use; see `reach`
        return [row for row in range(0, last * _ROW, _ROW) if cells[row]]

    def reach(self, seats: int) -> None:
        """Note how many seats, from the first one, need to be looked at."""
        self.cells[-1] = seats
