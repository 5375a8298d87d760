"""What the code of jobs says, on its way to the program that sent them.

    logging, warnings, loggers ──▶ Records ═══▶ logging of the program
    print, if that is wanted   ──▶   │ too many in a second: counted and dropped

In a worker. A record travels as a row of plain values: what was said, where, and in
which job. `logging` is not imported for its sake: a worker whose jobs do not log never
has it. One that has set up its own handlers, in its `initializer` perhaps, is left
alone.
"""

from __future__ import annotations

import sys
import threading
import time

from offloop.wire import on_import

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs a worker milliseconds at start
    from collections.abc import Callable, Mapping
    from typing import Any, TypeAlias

    #: name, level, text, created, path, line, function, thread, exception and stack,
    #: what the caller has added, job (0 for none) and its function
    Row: TypeAlias = tuple[Any, ...]

__all__ = ["MOST", "Records"]

#: records that a worker may send in one second
MOST = 1000

# Characters that a text may have, and values that were added.
_LONGEST = 32 * 1024
_LONGEST_VALUE = 1024

# The level at which a logger without one of its own lets records pass: WARNING.
_USUAL = 30

_PLAIN = frozenset({str, int, float, bool, type(None)})

# What each record has; the rest was added by whoever made it.
_KNOWN = frozenset(
    {
        *("name", "msg", "args", "levelname", "levelno", "pathname", "filename"),
        *("module", "exc_info", "exc_text", "stack_info", "lineno", "funcName"),
        *("created", "msecs", "relativeCreated", "thread", "threadName", "process"),
        *("processName", "taskName", "message", "asctime"),
    }
)

_LEVELS = {"stdout": 20, "stderr": 30}


class Records:
    """Takes records of all threads, and sends them from the main one.

    Args:
        send: hands over rows, and how many were dropped before them.
        job: number and function of the job that runs; 0 and "" if none does.
        wait: called when something waits for `flush`.
        keep: is given a line for each record, should the process die at once.
    """

    def __init__(
        self,
        send: Callable[[list[Row], int], object],
        job: Callable[[], tuple[int, str]],
        wait: Callable[[], object],
        keep: Callable[[memoryview], object],
    ) -> None:
        self._send = send
        self._job = job
        self._wait = wait
        self._keep = keep
        # A signal handler of the user's may log in the midst of it.
        self._lock = threading.RLock()
        #: rows of other threads
        self._rows: list[Row] = []
        #: when the second that is counted began, rows in it, and those dropped
        self._began = 0.0
        self._count = 0
        self._dropped = 0
        #: what was printed of a line that has not ended, and in which job, by stream
        self._begun: dict[str, tuple[str, tuple[int, str]]] = {}

    def listen(self, levels: Mapping[str, int]) -> None:
        """Take what is logged from now on.

        Args:
            levels: of the program's loggers by name, as far as they have one; "" is
                the root.
        """

        def install() -> None:
            _install(self, levels)

        if "logging" in sys.modules:
            install()
        else:
            on_import.watch("logging", install, always=True)

    def take(self, row: Row, job: tuple[int, str] | None = None) -> None:
        """Send a row, or keep it for the main thread, unless there are too many.

        Args:
            row: without its job.
            job: in which it was made; None: in the one that runs now.
        """
        with self._lock:
            now = time.monotonic()
            if now - self._began >= 1.0:
                self._began, self._count = now, 0
            self._count += 1
            if self._count > MOST:
                self._dropped += 1
                self._wait()
                return
            self._rows.append((*row, *(job or self._job())))
            if threading.current_thread() is threading.main_thread():
                self.flush()
            else:
                self._wait()

    def take_record(self, row: Row) -> None:
        """Take what was logged."""
        line = f"{row[2]}\n{row[8]}".rstrip() + "\n"
        self._keep(memoryview(line.encode(errors="replace")))
        self.take(row)

    def flush(self) -> None:
        """Send what waits; called in the main thread."""
        with self._lock:
            rows, self._rows = self._rows, []
            dropped, self._dropped = self._dropped, 0
        if rows or dropped:
            self._send(rows, dropped)

    # Lines

    def take_printed(self, stream: str, data: memoryview) -> None:
        """Take what was written to "stdout" or "stderr", line by line."""
        begun, job = self._begun.pop(stream, ("", None))
        text = begun + bytes(data).decode(errors="replace")
        *lines, rest = text.split("\n")
        for line in lines:
            self._take_line(stream, line, job)
            job = None
        if len(rest) > _LONGEST:
            self._take_line(stream, rest, job)
        elif rest:
            self._begun[stream] = rest, job or self._job()
            self._wait()

    def end_lines(self) -> None:
        """Send lines that have no end: their job has ended."""
        begun, self._begun = self._begun, {}
        for stream, (text, job) in begun.items():
            self._take_line(stream, text, job)

    def _take_line(self, stream: str, line: str, job: tuple[int, str] | None) -> None:
        thread = threading.current_thread().name
        told = (f"offloop.{stream}", _LEVELS[stream], line[:_LONGEST], time.time())
        self.take((*told, "", 0, "", thread, "", {}), job)


def _install(records: Records, levels: Mapping[str, int]) -> None:
    """Have the root logger pass on what it gets, unless somebody else does already."""
    import logging

    class Passing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                row = _row_of(record)
            except Exception:
                self.handleError(record)
            else:
                records.take_record(row)

    root = logging.getLogger()
    if root.handlers:
        return
    root.addHandler(Passing())
    for name, level in levels.items():
        logger = logging.getLogger(name or None)
        if logger.level == (_USUAL if logger is root else logging.NOTSET):
            logger.setLevel(level)


def _row_of(record: Any) -> Row:
    """Return what travels of a record, without who and in which job."""
    more = {
        name: value if type(value) in _PLAIN else repr(value)[:_LONGEST_VALUE]
        for name, value in vars(record).items()
        if name not in _KNOWN
    }
    return (
        record.name,
        record.levelno,
        record.getMessage()[:_LONGEST],
        record.created,
        record.pathname,
        record.lineno,
        record.funcName,
        record.threadName,
        _trouble_of(record),
        more,
    )


def _trouble_of(record: Any) -> str:
    """Return the tracebacks that belong to a record, as text."""
    import logging

    text = record.exc_text or ""
    if record.exc_info and not text:
        text = logging.Formatter().formatException(record.exc_info)
    if record.stack_info:
        text = f"{text}\n{record.stack_info}" if text else record.stack_info
    return text[-_LONGEST:]
