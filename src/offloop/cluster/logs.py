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
from typing import TYPE_CHECKING

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
        if self._as_json:
            about = {"time": time.time(), "role": role, "slot": slot, "pid": pid}
            text = json.dumps({**about, "line": line})
        else:
            name = role if slot is None else f"{role} {slot}"
            text = f"[{name} pid {pid}] {line}"
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
