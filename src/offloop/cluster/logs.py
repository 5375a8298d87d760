"""What children write: whole lines, each with who has written it.

    child's stdout and stderr ──pipe──▶ Lines ──whole lines──▶ Printer ──▶ ours

The last lines of each child are kept: when it dies, they say why. Nobody waits for
whoever reads the lines: they are written by a thread of its own, and if they are too
many, they are counted and dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from offloop.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 65536

# Chunks that are read at the end: there are no more in a pipe, unless somebody still
# writes, whom the child has left behind.
_READS = 17

# A line that is longer is cut into several.
_LONGEST = 65536

# Lines of each child that are kept.
_KEPT = 30

# Bytes of lines that may wait to be written.
_ROOM = 8 << 20

# Lines that are kept for those who ask, and their characters.
_TAIL_LINES = 2000
_TAIL_SIZE = 1 << 20


class Output:
    """Where lines go: a descriptor, as it is.

    Args:
        descriptor: stays the caller's.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes) -> None:
        """Write all of it.

        Raises:
            OSError: nobody reads any more.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                time.sleep(0.01)  # somebody has made it so: there is no other way

    def reopen(self) -> None:
        """Do nothing: it has no name by which it could be opened again."""

    def close(self) -> None:
        """Do nothing: it is the caller's."""


class LogFile(Output):
    """A file that is followed by a fresh one when it is large.

    Args:
        path: of the file; older ones are at PATH.1, PATH.2, ...
        size: bytes that it may have.
        keep: files that there may be.

    Raises:
        StartError: it cannot be opened.
    """

    def __init__(self, path: str, size: int = 10 << 20, keep: int = 10) -> None:
        self._path = path
        self._size = size
        self._keep = keep
        try:
            super().__init__(self._open())
        except OSError as error:
            raise StartError(f"no log can be written: {error}") from None

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        return os.open(self._path, flags, 0o640)

    def write(self, data: bytes) -> None:
        """Write all of it, to a fresh file if there is no more room in this one."""
        held = os.fstat(self._descriptor).st_size
        if held and held + len(data) > self._size:
            names = [self._path, *(f"{self._path}.{n}" for n in range(1, self._keep))]
            for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
                with contextlib.suppress(FileNotFoundError):
                    os.replace(newer, older)
            self.reopen()
        super().write(data)

    def reopen(self) -> None:
        """Write to the file that now has the name: somebody has moved this one away."""
        os.close(self._descriptor)
        self._descriptor = self._open()

    def close(self) -> None:
        os.close(self._descriptor)


class Line(NamedTuple):
    """One line, and who has written it.

    Attributes:
        time: seconds since 1970.
        role: of the process.
        slot: of it; None if it has none.
        pid: of it.
        line: without its end.
    """

    time: float
    role: str
    slot: int | None
    pid: int
    line: str

    def __str__(self) -> str:
        name = self.role if self.slot is None else f"{self.role} {self.slot}"
        return f"[{name} pid {self.pid}] {self.line}"

    def matches(self, role: str | None, slot: int | None) -> bool:
        """Tell whether it is of this role and slot; None: of any."""
        return role in (None, self.role) and slot in (None, self.slot)


class Tail:
    """The latest lines, for those who ask, and for those who wait for more."""

    def __init__(self) -> None:
        #: lines that there have ever been
        self.count = 0
        #: the latest ones, each with how many there had been then
        self._lines: deque[tuple[int, Line]] = deque()
        self._held = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._closed = False

    def add(self, line: Line) -> None:
        """Keep a line for now."""
        self.count += 1
        self._lines.append((self.count, line))
        self._held += len(line.line)
        while len(self._lines) > _TAIL_LINES or self._held > _TAIL_SIZE:
            self._held -= len(self._lines.popleft()[1].line)
        self._wake()

    def last(
        self, most: int, role: str | None, slot: int | None, after: int = 0
    ) -> list[Line]:
        """Return the latest lines of a role and slot; None: of any.

        Args:
            most: so many at most.
            role, slot: of those who have written them.
            after: leave out the first so many ever.
        """
        found = [
            line
            for number, line in self._lines
            if number > after and line.matches(role, slot)
        ]
        return found[-most:] if most else []

    async def until_more_than(self, count: int) -> None:
        """Wait until there have been more lines, or there will be no more."""
        while self.count <= count and not self._closed:
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting

    def close(self) -> None:
        """Let nobody wait any more."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)


class Printer:
    """Writes lines, in the order in which they come.

    Args:
        output: where to; stays the caller's.
        as_json: each line becomes an object.
    """

    def __init__(self, output: Output, *, as_json: bool = False) -> None:
        self._output = output
        self._reopening = False
        self._as_json = as_json
        #: the latest lines, for those who ask
        self.tail = Tail()
        self._lines: deque[bytes] = deque()
        self._waiting = 0
        self._dropped = 0
        self._closing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._run, name="offloop-printer", daemon=True
        )
        self._thread.start()

    def print(self, role: str, slot: int | None, pid: int, line: str) -> None:
        """Have a line written.

        Args:
            role: of the process that has said it.
            slot: of that process; None if it has none.
            pid: of that process.
            line: without its end.
        """
        said = Line(time.time(), role, slot, pid, line)
        self.tail.add(said)
        text = json.dumps(said._asdict()) if self._as_json else str(said)
        data = text.encode(errors="surrogateescape") + b"\n"
        with self._changed:
            if self._waiting + len(data) > _ROOM:
                self._dropped += 1
                return
            self._lines.append(data)
            self._waiting += len(data)
            self._changed.notify()

    def reopen(self) -> None:
        """Open the file anew, as log rotation wants it."""
        with self._changed:
            self._reopening = True
            self._changed.notify()

    def close(self, patience: float = 2.0) -> None:
        """Write what waits, unless nobody reads it."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(patience)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._lines or self._closing or self._reopening):
                    self._changed.wait()
                reopening, self._reopening = self._reopening, False
                if self._closing and not self._lines:
                    return
                data = b"".join(self._lines)
                if self._dropped:
                    text = f"[primary pid {os.getpid()}] {self._dropped} lines dropped"
                    data += text.encode() + b"\n"
                self._lines.clear()
                self._waiting = self._dropped = 0
            try:
                if reopening:
                    self._output.reopen()
                self._output.write(data)
            except OSError:
                return  # nobody reads any more, or nobody may write


class Lines:
    """Reads what one child writes.

    Args:
        pipe: descriptor to read from; belongs to this object from now on.
        tell: called with each line.
    """

    def __init__(self, pipe: int, tell: Callable[[str], object]) -> None:
        os.set_blocking(pipe, False)
        self._pipe = pipe
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._begun = b""
        self._open = True
        self._last: deque[str] = deque(maxlen=_KEPT)
        self._loop.add_reader(pipe, self._read)

    @property
    def last(self) -> str:
        """The last lines."""
        return "\n".join(self._last)

    def close(self) -> None:
        """Read what is there, and no more."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(_READS):
                if self._open:
                    self._take(os.read(self._pipe, _CHUNK))
        self._end()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._take(os.read(self._pipe, _CHUNK))

    def _take(self, data: bytes) -> None:
        if not data:
            self._end()
            return
        *whole, self._begun = (self._begun + data).split(b"\n")
        for line in whole:
            self._say(line)
        if len(self._begun) > _LONGEST:
            self._say(self._begun)
            self._begun = b""

    def _say(self, line: bytes) -> None:
        text = line.decode(errors="surrogateescape").rstrip("\r")
        self._last.append(text)
        self._tell(text)

    def _end(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._pipe)
        os.close(self._pipe)
        if self._begun:  # a crash may cut a line short
            self._say(self._begun)
            self._begun = b""
