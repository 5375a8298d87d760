"""The forkservers of one pool: one makes its new workers, others still have some.

    present ──▶ makes each new worker                     (there is at most one)
    old     ──▶ has workers left; goes with the last      (beside a thread, or old code)
    tried   ──▶ new code: becomes the present one, or is dropped

What modules they import ahead is known here, because the next one must learn what the
last one has learnt. Nothing here knows why a worker is wanted, or what becomes of it:
what a forkserver says of workers goes on to the supervisor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from offloop import messages
from offloop.handles import ForkserverHandle, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from offloop.handles import WorkerHandle
    from offloop.options import PoolOptions


class Forkservers:
    """Starts forkservers, teaches them, and lets them go.

    Args:
        options: of the pool.
        setup: what each worker gets first: the encoded initializer, or None.
        workers: all that there are, by number.
        hear: called with each message about workers, and with None when a forkserver
            has ended by itself.
    """

    def __init__(
        self,
        options: PoolOptions,
        setup: bytes | None,
        workers: Mapping[int, WorkerHandle],
        hear: Callable[[ForkserverHandle, tuple[Any, ...] | None], None],
    ) -> None:
        self._options = options
        self._setup = setup
        self._workers = workers
        self._pass_on = hear
        #: directory of the sockets
        self._folder = ""
        #: makes new workers; None when one has to be started for the next
        self._present: ForkserverHandle | None = None
        #: all whose processes may still exist, the present one included
        self._all: set[ForkserverHandle] = set()
        #: modules that they import, learnt from workers
        self._learnt: set[str] = set()
        #: why those that are being tried are no good
        self._troubles: dict[ForkserverHandle, str] = {}

    def begin(self, folder: str) -> None:
        """Start the first one, so that it is warm when a worker is wanted."""
        self._folder = folder
        self.present()

    def present(self) -> ForkserverHandle:
        """Return the one that makes new workers.

        Raises:
            OSError: it must be started, and this process may open no more files.
        """
        if self._present is None:
            self._present = self._make()
        return self._present

    def path_of(self, worker: int) -> str:
        """Return where the socket of a worker is that is about to be made."""
        return f"{self._folder}/{worker}"

    def learn(self, module: str) -> None:
        """Let later workers find a module imported that a worker saw to be harmless."""
        if module not in self._learnt:
            self._learnt.add(module)
            if self._present is not None:
                self._present.order((messages.LEARN, module))

    # New code

    def make_trial(self) -> ForkserverHandle:
        """Return a new one beside the one that makes the pool's workers."""
        forkserver = self._make()
        self._troubles[forkserver] = ""
        return forkserver

    def trouble_of(self, forkserver: ForkserverHandle) -> str:
        """Return why one that was made to be tried is no good; "" if it is."""
        return self._troubles[forkserver]

    def use(self, forkserver: ForkserverHandle) -> None:
        """Let one that was tried make all further workers."""
        del self._troubles[forkserver]
        old, self._present = self._present, forkserver
        if old is not None:
            self.let_go(old)

    def drop(self, forkserver: ForkserverHandle) -> None:
        """Forget one that was made to be tried."""
        del self._troubles[forkserver]
        self.let_go(forkserver)

    # Their ends

    def let_go(self, forkserver: ForkserverHandle) -> None:
        """End one that makes no more workers and has none left."""
        if forkserver is not self._present and not any(
            worker.forkserver is forkserver for worker in self._workers.values()
        ):
            forkserver.hang_up()

    def hang_up(self) -> None:
        """Send all of them away: they kill their workers and go."""
        for forkserver in self._all:
            forkserver.hang_up()

    async def gone(self) -> None:
        """Wait until all have ended."""
        for forkserver in list(self._all):
            await forkserver.gone()

    # Hearing them

    def _make(self) -> ForkserverHandle:
        forkserver = ForkserverHandle(
            self._folder,
            self._options.preload,
            environment(self._options),
            self._hear,
            self._all.discard,
        )
        self._all.add(forkserver)
        if self._setup is not None:
            forkserver.order((messages.SETUP, self._setup))
        for module in self._learnt:
            forkserver.order((messages.LEARN, module))
        return forkserver

    def _hear(
        self, forkserver: ForkserverHandle, message: tuple[Any, ...] | None
    ) -> None:
        if message is not None and message[0] == messages.LEARNED:
            self._heard_learned(forkserver, *message[1:])
            return
        if message is None:
            forkserver.lost = True
            if forkserver is self._present:
                self._present = None
        self._pass_on(forkserver, message)

    def _heard_learned(
        self, forkserver: ForkserverHandle, module: str, reason: str, alone: bool
    ) -> None:
        if forkserver in self._troubles:
            # The code is being tried: that is not yet what the others may expect.
            if reason or not alone:
                reason = reason or "it starts a thread"
                self._troubles[forkserver] = f"importing {module} failed: {reason}"
            return
        if reason:
            self._learnt.discard(module)
        if not alone and forkserver is self._present:
            # Forking beside a thread is not safe: the next worker gets a fresh
            # forkserver. This one stays for as long as it has workers.
            self._present = None
            self.let_go(forkserver)
