"""A child of the primary, as that sees it: its process, its line, what it writes.

It is spawned from the primary's main thread, because the kernel ties "when the parent
dies" to the thread that has started a process. That takes a millisecond or two, in
which the primary hears nobody; nobody's request waits for it.

A handle decides nothing; `crew` does, through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from math import inf
from typing import TYPE_CHECKING, Any

from offloop import messages
from offloop.handles import WorkerExit
from offloop.wire.lifeline import Lifeline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from offloop.cluster.logs import Lines
    from offloop.core.exits import ExitReason
    from offloop.hearing import Hearing

# Runs in the new interpreter. Its first argument is for people who look at processes.
_BOOTSTRAP = (
    "import sys; name, line, parent, *sys.path[:] = sys.argv[1:];"
    "from offloop.cluster.child import main;"
    "main(int(line), int(parent))"
)


class Offspring:
    """One child.

    Args:
        role: "server" or "coordinator".
        number: unique in its crew, never used again; negative: it is only tried.
        slot: its place in the crew.
        environment: of the new process.
        hear: called with this child and the parts of each message of its.
        ended: called with this child when its process has ended.

    Raises:
        OSError: no process can be had.
    """

    def __init__(
        self,
        role: str,
        number: int,
        slot: int,
        environment: Mapping[str, str],
        hear: Callable[..., object],
        ended: Callable[[Offspring], object],
    ) -> None:
        self.role = role
        self.number = number
        self.slot = slot
        #: its row in the page of loads, if it is a server
        self.seat = -1
        #: requests and bytes at which it is replaced; 0 is no limit
        self.limits = (0, 0)
        #: asks it where it is, if it can be asked
        self.hearing: Hearing | None = None
        #: descriptor of its status page, if it has one; owned by this object
        self.page = -1
        self.made_at = time.monotonic()
        #: when it has said that it is ready; inf before
        self.ready_at = inf
        #: it has said that it takes no more connections
        self.closed = False
        #: why it was asked to end, in words; "" while nobody did
        self.ending = ""
        #: the same as a word; None while nobody did
        self.reason: ExitReason | None = None
        #: how it ended; None while it lives
        self.exit: WorkerExit | None = None
        #: reads what it writes
        self.lines: Lines | None = None
        self._loop = asyncio.get_running_loop()
        self._hear = hear
        self._ended = ended
        self._line, theirs = Lifeline.pair()
        output, pipe = os.pipe2(os.O_CLOEXEC)
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
                    "-c",
                    _BOOTSTRAP,
                    f"offloop-{role}-{slot}",
                    str(theirs.fileno()),
                    str(os.getpid()),
                    *sys.path,
                ],
                stdin=subprocess.DEVNULL,
                stdout=pipe,
                stderr=pipe,
                pass_fds=[theirs.fileno()],
                env=environment,
                process_group=0,  # Ctrl-C is for the primary
            )
        except OSError:
            os.close(output)
            self._line.close()
            raise
        finally:
            theirs.close()
            os.close(pipe)
        self.output = output
        self.pid = self._process.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._notice_end)
        self._loop.add_reader(self._line.fileno(), self._read)

    @property
    def last_lines(self) -> str:
        """The last that it has written."""
        return "" if self.lines is None else self.lines.last

    @property
    def ready(self) -> bool:
        """True once it has said that it is ready."""
        return self.ready_at != inf

    def begin(self, settings: dict[str, Any], files: Sequence[int]) -> None:
        """Tell it what it is."""
        first = (messages.BEGIN, self.role, settings, len(files))
        self.tell(first, *files)

    def tell(self, message: tuple[Any, ...], *descriptors: int) -> None:
        """Send it a message, unless it has gone."""
        if self.exit is None:
            self._line.send(message, *descriptors)
            if not self._line.flush():
                self._loop.add_writer(self._line.fileno(), self._write)

    def send_signal(self, number: int) -> None:
        """Signal the process, if it still lives."""
        if self.exit is None:
            signal.pidfd_send_signal(self._pidfd, number)

    def bury(self) -> None:
        """Kill what it has left behind, and let its number go."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def _write(self) -> None:
        if self._line.flush():
            self._loop.remove_writer(self._line.fileno())

    def _read(self) -> None:
        for message in self._line.receive():
            self._hear(self, *message)
        if self._line.ended:
            self._loop.remove_reader(self._line.fileno())

    def _notice_end(self) -> None:
        # Not reaped yet: its number, which is its group's too, stays its own.
        ended = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return
        self._read()  # its last word
        self._loop.remove_reader(self._line.fileno())
        self._loop.remove_writer(self._line.fileno())
        self._line.close()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        if self.lines is not None:
            self.lines.close()
        if self.hearing is not None:
            self.hearing.close()
            os.close(self.page)
        code = ended.si_status
        if ended.si_code != os.CLD_EXITED:
            code = -code
        ended_at, said = time.monotonic(), self.last_lines
        self.exit = WorkerExit(self.pid, code, 0, ended_at, printed=said)
        self._ended(self)
