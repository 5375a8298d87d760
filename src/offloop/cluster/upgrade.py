"""Leaves the place of this primary to a new one, started by the same command line.

    old primary ──SOCKET (+ descriptor), ..., INHERIT──▶ new primary
                                                         its coordinator, its servers
                ◀──TAKEN, or HOPELESS──────────────────  the names are its own
                ──GO───────────────────────────────────▶ it is the main process now
    requests end, then the old one

The new one has the code of offloop and of the application as they are on disk now. Both
serve for a moment, at the same sockets, so that no connection is refused. If the new
one does not get that far, the old one goes on as if nothing had been asked of it.
`heritage` is the other side.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from offloop import messages
from offloop.cluster.heritage import VARIABLE
from offloop.cluster.logs import Lines
from offloop.errors import StartError
from offloop.wire.lifeline import Lifeline

if TYPE_CHECKING:
    from offloop.cluster.binding import Bound
    from offloop.cluster.primary import Primary

# The new primary waits for its coordinator, a trial and its servers, each of which may
# take the boot timeout; longer than that it does not take.
_BOOTS = 4


async def upgrade(primary: Primary) -> int:
    """Let a new primary take over, and begin to end; returns its process id.

    Raises:
        StartError: it could not start; `str` says why, and this primary goes on.
    """
    try:
        heir = Heir(primary)
    except OSError as error:
        raise _refused(f"no process can be started: {error}") from None
    primary.heir = heir
    try:
        heir.bequeath()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BOOTS * primary.settings.boot_timeout):
                await primary.until(lambda: heir.taken or heir.gone)
        if not heir.taken:
            await heir.dismiss()
            await primary.keep_place()
            raise _refused(heir.why)
        primary.hand_over(heir.pid)
        heir.tell((messages.GO,))
        return heir.pid
    finally:
        heir.close()
        primary.heir = None
        primary.changed()


class Heir:
    """The process that is to take over.

    Args:
        primary: whose place it is.

    Raises:
        OSError: no process can be had.
    """

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        #: all that was this primary's is its own
        self.taken = False
        #: what it has said of its failure
        self._trouble = ""
        #: its end is noted
        self._ended = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._line, theirs = Lifeline.pair()
        output, pipe = os.pipe2(os.O_CLOEXEC)
        environment = {
            **os.environ,
            **primary.notifier.for_successor(),
            VARIABLE: f"{theirs.fileno()}:{os.getpid()}",
        }
        try:
            self._process = subprocess.Popen(
                _command_line(),
                stdout=pipe,  # what it says before it has ours is a reason
                stderr=pipe,
                pass_fds=[theirs.fileno()],
                env=environment,
                cwd=primary.folder,
            )
        except OSError:
            os.close(output)
            self._line.close()
            raise
        finally:
            theirs.close()
            os.close(pipe)
        self.pid = self._process.pid
        tell = partial(primary.printer.print, "new primary", None, self.pid)
        self._lines = Lines(output, tell)
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._notice_end)
        self._loop.add_reader(self._line.fileno(), self._read)

    @property
    def gone(self) -> bool:
        """True once it has ended."""
        return self._ended.done()

    @property
    def why(self) -> str:
        """Why it has not taken over."""
        if self._trouble:
            return self._trouble
        if self._primary.code is not None:
            return "the end has begun"
        code = self._process.poll()
        how = "it took too long" if code is None else f"it exited with code {code}"
        return "\n".join(filter(None, (how, self._lines.last.rstrip())))

    def bequeath(self) -> None:
        """Give it the sockets, and what is known of how many servers are wanted."""
        primary = self._primary
        for bound in primary.bound:
            self._give(bound)
        for bound in primary.own:
            self._give(bound)
        scaled = primary.wanted != primary.settings.workers
        wanted = primary.wanted if scaled else 0
        self.tell((messages.INHERIT, wanted, primary.unready), 1, 2)

    def _give(self, bound: Bound) -> None:
        about = (bound.address, bound.url, bound.path, bound.made)
        self.tell((messages.SOCKET, *about), bound.socket.fileno())

    def tell(self, message: tuple[Any, ...], *descriptors: int) -> None:
        """Send it a message."""
        self._line.send(message, *descriptors)
        if not self._line.flush():
            self._loop.add_writer(self._line.fileno(), self._write)

    def _write(self) -> None:
        if self._line.flush():
            self._loop.remove_writer(self._line.fileno())

    async def dismiss(self) -> None:
        """Have it end, with whatever has come to it, and wait for that."""
        if not self.gone:
            self._process.send_signal(signal.SIGTERM)
            await self._ended

    def close(self) -> None:
        """Let it go."""
        self._loop.remove_reader(self._line.fileno())
        self._loop.remove_writer(self._line.fileno())
        self._line.close()
        self._lines.close()
        if not self.gone:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)

    def _read(self) -> None:
        for kind, *details in self._line.receive():
            if kind == messages.TAKEN:
                self.taken = True
            elif kind == messages.HOPELESS:
                (self._trouble,) = details
        if self._line.ended:
            self._loop.remove_reader(self._line.fileno())
        self._primary.changed()

    def _notice_end(self) -> None:
        if self._process.poll() is None:
            return
        self._read()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._lines.close()
        self._ended.set_result(None)
        self._primary.changed()


def _command_line() -> list[str]:
    """Return what has started this process."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    program = [sys.argv[0]]
    if os.path.basename(sys.argv[0]) == "__main__.py":
        program = ["-m", "offloop"]
    return [sys.executable, *flags, *program, *sys.argv[1:]]


def _refused(why: str) -> StartError:
    return StartError(f"no new primary: {why}; the old one goes on", output=why)
