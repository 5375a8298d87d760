"""A `map` of an executor, seen from both threads.

    the caller's thread    rows ──▶ box ──▶    the executor's thread: jobs
                           results ◀── batches

The rows are read where the results are asked for, because an iterable of the user's
runs in the user's thread.
"""

from __future__ import annotations

import queue
from contextvars import copy_context
from itertools import islice
from typing import TYPE_CHECKING, Any

from offloop.sources import Mailbox, Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from offloop.sources import Source


class Mapping:
    """A `map`, seen from both threads."""

    __slots__ = (
        "box",
        "chunksize",
        "context",
        "ended",
        "fn",
        "rest",
        "results",
        "source",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        spread: bool,
        chunksize: int | None,
        buffersize: int | None,
        rows: Iterator[Any],
    ) -> None:
        self.fn = fn
        self.chunksize = chunksize
        #: of the thread that asked for it
        self.context = copy_context()
        first = list(islice(rows, buffersize))
        if buffersize is not None and len(first) < buffersize:
            buffersize = None  # that was all
        #: items that are read as results are asked for
        self.rest = rows
        #: where they go; None if all were read at the call
        self.box = None if buffersize is None else Mailbox(spread, first)
        self.source: Source = self.box or Rows(first, spread)
        #: batches of results, and at last how it ended
        self.results: queue.SimpleQueue[list[Any] | End] = queue.SimpleQueue()
        self.ended = False


class End:
    """The end of a `map`: by an error, or because all is done."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error
