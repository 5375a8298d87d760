"""Where records that jobs have made are handled: in this program's own logging.

    worker ═ rows ═▶ Logbook ─▶ a thread ─▶ logging.getLogger(name).handle(record)
                                              in the context of the job's caller

Handlers write files and sockets, so a thread calls them and not the event loop; it
begins with the first record. Each record has the job, its function, the worker and the
pool as attributes ``offloop_job``, ``offloop_function``, ``offloop_worker`` and
``offloop_pool``, and filters and formatters see the context variables of the job's
caller.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from typing import TYPE_CHECKING, Any

from offloop.wire import carried
from offloop.wire.records import MOST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_log = logging.getLogger("offloop")

# Rows that may wait for the thread: handlers may be slower than workers.
_ROOM = 20_000

# Seconds that the thread gets for what waits at the end.
_PATIENCE = 2.0


def levels() -> dict[str, int]:
    """Return the levels of this program's loggers, by name, as far as they have one."""
    found = {"": logging.root.level}
    for name, logger in list(logging.root.manager.loggerDict.items()):
        level = getattr(logger, "level", logging.NOTSET)
        if level != logging.NOTSET:
            found[name] = level
    return found


class Logbook:
    """Handles the records of one pool's jobs.

    Args:
        pool: its name.
    """

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._rows: queue.SimpleQueue[Any] = queue.SimpleQueue()
        #: None until there is something to do
        self._thread: threading.Thread | None = None
        #: rows for which there was no room
        self._missed = 0

    def take(
        self,
        worker: int,
        rows: Sequence[tuple[Any, ...]],
        dropped: int,
        find: Callable[[int], Any],
    ) -> None:
        """Have rows of a worker handled, in their order.

        Args:
            worker: its number.
            rows: see `wire.records`.
            dropped: rows that it has not sent, because there were too many.
            find: returns the call of a job, or None.
        """
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="offloop-logs", daemon=True
            )
            self._thread.start()
        if self._rows.qsize() > _ROOM:
            self._missed += len(rows) + dropped
            return
        for row in rows:
            call = find(row[-2]) if row[-2] else None
            self._rows.put((worker, row, () if call is None else call.carried or ()))
        dropped, self._missed = dropped + self._missed, 0
        if dropped:
            self._rows.put((worker, None, dropped))

    async def close(self) -> None:
        """Handle what waits, and end."""
        thread = self._thread
        if thread is not None:
            loop = asyncio.get_running_loop()
            ended = loop.create_future()
            self._rows.put(lambda: loop.call_soon_threadsafe(_set, ended))
            with contextlib.suppress(TimeoutError):  # its handlers are slow: it goes on
                await asyncio.wait_for(ended, _PATIENCE)
                thread.join()  # its last act was to say so

    def abandon(self) -> None:
        """End when what waits is handled; nobody waits for that."""
        self._rows.put(lambda: None)

    # The thread's own

    def _run(self) -> None:
        while True:
            item = self._rows.get()
            if callable(item):  # it is the last
                item()
                return
            worker, row, context = item
            if row is None:
                _log.warning(
                    "worker %d of pool %r: %d log records were dropped, as there were "
                    "more than %d in a second",
                    *(worker, self._pool, context, MOST),
                    extra={"offloop_worker": worker, "offloop_dropped": context},
                )
                continue
            try:
                self._handle(worker, row, context)
            except Exception:
                _log.exception("a record of worker %d could not be handled", worker)

    def _handle(self, worker: int, row: tuple[Any, ...], context: Any) -> None:
        logger = logging.getLogger(row[0])
        if logger.isEnabledFor(row[1]):
            record = _record(row)
            record.offloop_worker = worker
            record.offloop_pool = self._pool
            if context:
                carried.restored(context).run(logger.handle, record)
                carried.let_go()
            else:
                logger.handle(record)


def _record(row: tuple[Any, ...]) -> logging.LogRecord:
    """Return a record like the one that was made in the worker."""
    name, level, text, created, path, line, function, *rest = row
    thread, trouble, more, job, job_function = rest
    record = logging.LogRecord(name, level, path, line, text, None, None, function)
    record.created = created
    record.msecs = (created - int(created)) * 1000
    record.threadName = thread
    record.exc_text = trouble or None
    vars(record).update(more)
    record.offloop_job = job or None
    record.offloop_function = job_function
    return record


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
