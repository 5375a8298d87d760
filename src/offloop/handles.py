"""Other processes as their parent sees them: workers and their forkserver.

A handle owns what the parent holds of a process (sockets, descriptors, the thread that
waits for it) and releases it. Handles decide nothing; `supervisor` does, through them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

from offloop import folders, leftovers, messages
from offloop.hearing import Hearing
from offloop.wire.lifeline import Lifeline
from offloop.wire.status import StatusPage

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping, Sequence

    from offloop.core.exits import ExitReason
    from offloop.options import PoolOptions
    from offloop.wire.channel import Channel

# Runs in the new interpreter. It gets our sys.path, because the user's program may have
# changed its own, and must find offloop by it.
_BOOTSTRAP = (
    "import sys; line, parent, folder, brand, preload, *sys.path[:] = sys.argv[1:];"
    "from offloop.forkserver import main;"
    "main(int(line), int(parent), folder, int(brand), preload.split())"
)


# Libraries that start a thread for each core, each with a variable of its own.
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "VIPS_CONCURRENCY",
)

# Seconds that a forkserver gets to go when it was sent away.
PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker process ended.

    Attributes:
        pid: its process id, None when it never was one.
        code: its exit code; negative: the number of the signal that ended it; None when
            that is not known.
        peak_rss: its largest resident memory in bytes.
        ended_at: monotonic seconds.
        words: its last words: faulthandler's traceback, or why it could not start.
        printed: the last lines that it has written to stdout and stderr.
    """

    pid: int | None
    code: int | None
    peak_rss: int
    ended_at: float
    words: str = ""
    printed: str = ""

    @property
    def output(self) -> str:
        """All that it has left: what it has printed, and its last words."""
        between = "\n" if self.printed and not self.printed.endswith("\n") else ""
        return self.printed + between + self.words

    @property
    def exitcode(self) -> int | None:
        """The exit code, if no signal ended the process."""
        return None if self.code is None or self.code < 0 else self.code

    @property
    def signal(self) -> str | None:
        """Name of the signal that ended the process, if one did."""
        if self.code is None or self.code >= 0:
            return None
        try:
            return signal.Signals(-self.code).name
        except ValueError:
            return f"signal {-self.code}"

    def __str__(self) -> str:
        if self.signal is not None:
            return f"was killed by {self.signal}"
        if self.code is None:
            return "ended"
        return f"exited with code {self.code}"


class WorkerHandle:
    """A worker as its parent sees it.

    Args:
        number: unique in its pool, never used again.
        slot: its place in the pool, 0 to max_workers - 1; outlives the process. -1 for
            one that stands by for nobody in particular, or is only tried.
        forkserver: the one that makes it.
        channel: bound already.
        page: descriptor of its status page file; belongs to the handle from now on.
        results: descriptor of the file for its large results; likewise.
    """

    def __init__(
        self,
        number: int,
        slot: int,
        forkserver: ForkserverHandle,
        channel: Channel,
        page: int,
        results: int,
    ) -> None:
        self.number = number
        self.slot = slot
        self.forkserver = forkserver
        self.channel = channel
        self.page = StatusPage(page)
        #: None until the forkserver has told it
        self.pid: int | None = None
        #: what the worker said about a set-up that failed
        self.broken = ""
        #: when it was asked for, in monotonic seconds
        self.made_at = time.monotonic()
        #: when it has said that it is ready, in monotonic seconds; inf before
        self.ready_at = inf
        #: why it was asked to end, in words; "" while nobody did
        self.ending = ""
        #: the same as a word; None while nobody did
        self.reason: ExitReason | None = None
        #: how it ended; None while it lives
        self.exit: WorkerExit | None = None
        self.results = results
        #: asks it where it is
        self.hearing = Hearing(page, self.send_signal)
        self._page_file = page
        self._pidfd: int | None = None

    @property
    def ready(self) -> bool:
        """True once it has said that it is ready."""
        return self.ready_at != inf

    def identity(self) -> dict[str, int | None]:
        """Return what events call it by."""
        return {"worker": self.number, "slot": self.slot, "pid": self.pid}

    def started(self, pid: int, pidfd: int | None) -> None:
        """Note that the process exists; `pidfd` belongs to the handle from now on."""
        self.pid = pid
        self._pidfd = pidfd

    def send_signal(self, signum: int) -> None:
        """Signal the process, if it still exists."""
        if self._pidfd is None:
            # Either there are no pidfds here, or it was not told yet: its parent knows.
            self.forkserver.order((messages.SIGNAL, self.number, int(signum)))
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signum)

    def last_words(self) -> str:
        """Return what is known of a failed set-up or a crash, or ""."""
        return self.broken or StatusPage.last_words(self._page_file)

    def close(self) -> None:
        """Release everything; the process is gone."""
        self.hearing.close()
        self.channel.close()
        self.page.close()
        os.close(self._page_file)
        os.close(self.results)
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None


class ForkserverHandle:
    """A forkserver as its parent sees it.

    Args:
        folder: directory of the sockets, which it removes if the parent dies.
        preload: modules to import before the first fork.
        environment: of the new process.
        hear: called with each message from it, and with None after the last one.
        ended: called when the process has ended, unless the loop has.
    """

    def __init__(
        self,
        folder: str,
        preload: Sequence[str],
        environment: Mapping[str, str],
        hear: Callable[[ForkserverHandle, tuple[Any, ...] | None], None],
        ended: Callable[[ForkserverHandle], object] = lambda handle: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._hear = hear
        self._tell_ended = ended
        self._lifeline, theirs = Lifeline.pair()
        self._fd = self._lifeline.fileno()
        self._open = True
        self._ended = asyncio.Event()
        #: borne by all that it starts, and by nothing else
        self._brand = leftovers.draw_brand()
        #: set by the keeper; None until the process exists
        self._process: subprocess.Popen[bytes] | None = None
        #: it ended by itself, and its workers with it
        self.lost = False
        #: that was counted as a death, once for all of its workers
        self.was_counted = False
        #: why it could not be started; "" if it could
        self.failure = ""
        command = [
            sys.executable,
            *subprocess._args_from_interpreter_flags(),  # type: ignore[attr-defined]
            "-c",
            _BOOTSTRAP,
            str(theirs.fileno()),
            str(os.getpid()),
            folder,
            str(self._brand),
            " ".join(preload),
            *sys.path,
        ]
        self._loop.add_reader(self._fd, self._readable)
        self._keeper = threading.Thread(
            target=self._keep,
            args=(command, dict(environment), theirs, folder),
            name="offloop-forkserver",
            daemon=True,
        )
        self._keeper.start()

    def order(self, message: tuple[Any, ...], *descriptors: int) -> None:
        """Send an order; it waits in the socket until the process can read it."""
        if self._open:
            self._lifeline.send(message, *descriptors)
            if not self._lifeline.flush():
                self._loop.add_writer(self._fd, self._writable)

    def take_descriptor(self) -> int | None:
        """Return the descriptor that came with the message being heard.

        None: this process has no room for another one, and the kernel dropped it.
        """
        line = self._lifeline
        return line.take_descriptor() if line.has_descriptor else None

    def hang_up(self) -> None:
        """Send the process away: it kills its workers and goes."""
        if self._open:
            self._open = False
            self._lifeline.send((messages.QUIT,))
            if not self._loop.is_closed():
                self._loop.remove_reader(self._fd)
                self._loop.remove_writer(self._fd)
            self._lifeline.close()

    async def gone(self) -> None:
        """Wait until the process has ended, and its keeper with it.

        One that does not listen, because somebody has stopped it, is killed after
        PATIENCE seconds; its workers die of that.
        """
        try:
            await asyncio.wait_for(self._ended.wait(), PATIENCE)
        except TimeoutError:
            if self._process is not None:
                self._process.kill()
            await self._ended.wait()
        self._keeper.join()  # its last statement was to wake us

    def _keep(
        self,
        command: list[str],
        environment: dict[str, str],
        line: socket.socket,
        folder: str,
    ) -> None:
        """Run the process from its first moment to its last, in a thread of its own.

        Spawning takes milliseconds, which the loop does not have. And the kernel ties
        "when the parent dies" to the thread that started the child, so that thread must
        live as long as the child does.
        """
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[line.fileno()],
                env=environment,
            )
        except OSError as error:
            self.failure = f"the forkserver cannot be started: {error}"
        finally:
            line.close()
        folders.remove_abandoned(folder)
        if self._process is not None and self._process.wait() != 0:
            # Somebody has killed it: it could not end what its workers have left.
            leftovers.end_branded(self._brand)
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody listens
            self._loop.call_soon_threadsafe(self._note_ended)

    def _note_ended(self) -> None:
        self._ended.set()
        self._tell_ended(self)

    def _readable(self) -> None:
        for message in self._lifeline.receive():
            self._hear(self, message)
        if self._open and self._lifeline.ended:
            self.hang_up()
            self._hear(self, None)

    def _writable(self) -> None:
        if self._lifeline.flush():
            self._loop.remove_writer(self._fd)


def environment(options: PoolOptions) -> dict[str, str]:
    """Return the variables of a pool's forkservers and workers."""
    variables = dict(os.environ)
    threads = options.threads_per_worker
    if threads is not None:
        for variable in _THREAD_VARIABLES:
            variables.setdefault(variable, str(threads))
    variables.update(options.env)
    return variables
