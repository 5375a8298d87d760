"""The terminal: keys as they are pressed, and lines where they belong.

In ``with``, keys are not echoed and come at once, and the screen that was there before
comes back at the end, however that comes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType, TracebackType
    from typing import Self

# What terminals send for keys that have no letter.
_SEQUENCES = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x1b": "escape",
    b"\t": "tab",
    b"\r": "enter",
    b"\n": "enter",
}


class Terminal:
    """The terminal of this process, for as long as it shows something."""

    def __init__(self) -> None:
        self._console = Console()
        self._screen = self._console.screen(hide_cursor=True)
        self._before: list[Any] | None = None
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        width, height = self._console.size
        return max(width, 20), max(height, 6)

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        self._screen.__enter__()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _leave)
        signal.signal(signal.SIGWINCH, lambda number, frame: self.wake())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._screen.__exit__(kind, error, traceback)
        if self._before is not None:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)
        signal.signal(signal.SIGWINCH, signal.SIG_DFL)
        os.close(self._reader)
        os.close(self._writer)

    def show(self, lines: Sequence[Text]) -> None:
        """Show these lines, and nothing else."""
        whole = Text("\n", no_wrap=True, end="").join(lines)
        whole.no_wrap = True
        self._screen.update(whole)

    def wake(self) -> None:
        """Have `wait` return; may be called from another thread."""
        with contextlib.suppress(OSError):  # it was told often enough, or is closed
            os.write(self._writer, b".")

    def wait(self, seconds: float) -> list[str]:
        """Wait for keys, for `wake`, or for so long; returns the keys."""
        descriptors = [sys.stdin.fileno(), self._reader]
        ready = select.select(descriptors, [], [], seconds)[0]
        if self._reader in ready:
            os.read(self._reader, 4096)
        if sys.stdin.fileno() not in ready:
            return []
        data = os.read(sys.stdin.fileno(), 1024)
        if not data:
            return ["q"]  # the terminal has gone
        return keys_in(data)


def keys_in(data: bytes) -> list[str]:
    """Return the keys that a terminal has sent, by name."""
    found = []
    while data:
        for sequence, name in _SEQUENCES.items():
            if data.startswith(sequence):
                found.append(name)
                data = data[len(sequence) :]
                break
        else:
            found.append(data[:1].decode("latin-1"))
            data = data[1:]
    return found


def _leave(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
