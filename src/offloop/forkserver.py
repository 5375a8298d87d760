"""Makes workers quickly: a warm, single-threaded process that forks on request.

    parent ──lifeline──▶ forkserver ──fork──▶ worker, worker, worker
             FORK, LEARN             EXITED

It imports what every worker needs (and `preload`) once; a worker is then a fork away: 2
ms instead of 130 ms for a fresh interpreter with numpy. It never runs a job, never
starts a thread, and never waits for anything but its lifeline and the ends of its
children.

Nothing survives its parent. When the parent dies, however it dies, the lifeline ends
and its pidfd becomes readable (a forked child of the parent may hold the lifeline
open): the forkserver kills its workers with all that they have started, and goes. Each
worker has asked the kernel to be killed when the forkserver dies (PR_SET_PDEATHSIG),
which works in an endless C loop and for a stopped process too; the forkserver is
single-threaded, so "parent" means it and not a thread of it. The forkserver asks for
SIGCONT: if somebody has stopped it, the parent's death wakes it up to clean up.

What a job has started lives as long as its worker at most: orphans come to the
forkserver, which knows by their mark whose they are (`leftovers`).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
import traceback

from offloop import context, leftovers, messages, ties, worker
from offloop.wire.lifeline import Lifeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class _Child:
    """A worker as its forkserver sees it."""

    __slots__ = ("mark", "pid", "pidfd", "worker")

    def __init__(self, worker: int, mark: int, pid: int, pidfd: int | None) -> None:
        self.worker = worker
        #: borne by it and all that it starts; no other process has it
        self.mark = mark
        self.pid = pid
        #: readable when the process has ended; None where the system has no pidfd
        self.pidfd = pidfd


class Forkserver:
    """Obeys one parent over its lifeline.

    Args:
        lifeline: the other end belongs to the parent alone.
        parent: descriptor that is readable when the parent has ended; None where the
            system has no pidfd.
        folder: directory of the parent's sockets, removed when the parent is gone.
        brand: a number that no other forkserver has.
    """

    def __init__(
        self, lifeline: Lifeline, parent: int | None, folder: str, brand: int
    ) -> None:
        self._lifeline = lifeline
        self._folder = folder
        self._brand = brand
        #: what this process bears itself: its parent may be a worker of another pool
        self._own_mark = leftovers.mark_of(os.getpid())
        #: True once the parent has said goodbye: it lives, and the folder is its own
        self._dismissed = False
        #: the encoded initializer of the workers, None if there is none
        self._setup: bytes | None = None
        self._children: dict[int, _Child] = {}
        self._poll = select.poll()
        self._poll.register(lifeline.fileno(), select.POLLIN)
        self._parent = parent
        #: number of workers that were forked, or tried to be
        self._forks = 0
        #: orphans of workers become children of this process
        self._adopts = leftovers.adopt()
        #: tells of ended orphans, and of ended workers where there is no pidfd
        self._wakeup = _WakeUp() if parent is None or self._adopts else None
        for watched in (parent, self._wakeup):
            if watched is not None:
                self._poll.register(watched, select.POLLIN)

    def serve(self) -> None:
        """Obey until the lifeline ends, then leave nothing behind."""
        line = self._lifeline.fileno()
        while not self._lifeline.ended:
            ready = [descriptor for descriptor, _ in self._poll.poll()]
            if self._parent in ready:
                break
            if self._wakeup is not None and self._wakeup.fileno() in ready:
                self._wakeup.drain()
                if self._parent is None:
                    ready += list(self._children)
            for descriptor in ready:
                child = self._children.get(descriptor)
                if child is not None:
                    self._reap(descriptor, child)
            if self._adopts and ready != [line]:  # somebody has ended
                self._sweep()
            if line in ready:
                for order in self._lifeline.receive():
                    self._obey(order)
        self._end_children()
        if self._wakeup is not None:
            self._wakeup.close()
        if not self._dismissed:
            _remove(self._folder)

    def _obey(self, order: tuple[Any, ...]) -> None:
        kind, *details = order
        if kind == messages.SETUP:
            self._setup = details[0]
        elif kind == messages.FORK:
            self._fork(*details)
        elif kind == messages.LEARN:
            self._learn(*details)
        elif kind == messages.SIGNAL:
            self._signal(*details)
        elif kind == messages.QUIT:
            self._dismissed = True

    def _fork(self, number: int, address: str) -> None:
        files = tuple(self._lifeline.take_descriptor() for _ in range(3))
        forkserver = os.getpid()
        mark = self._next_mark()
        try:
            pid = os.fork()
        except OSError as error:
            _close_all(files)
            reason = f"fork failed: {error.strerror}"
            self._lifeline.send((messages.EXITED, number, 0, None, 0, reason))
            return
        if pid == 0:
            self._become_worker(forkserver, number, address, files)
        _close_all(files)
        self._watch(number, mark, pid)

    def _next_mark(self) -> int:
        """Return a mark that no worker has; after millions of them they come again."""
        marks = {child.mark for child in self._children.values()}
        while True:
            self._forks += 1
            mark = leftovers.make_mark(self._brand, self._forks)
            if mark not in marks:
                return mark

    def _watch(self, number: int, mark: int, pid: int) -> None:
        # The child is not reaped before this, so its pid cannot belong to another
        # process.
        pidfd = None
        if self._parent is not None:
            pidfd = os.pidfd_open(pid)
            self._poll.register(pidfd, select.POLLIN)
        self._children[pid if pidfd is None else pidfd] = _Child(
            number, mark, pid, pidfd
        )
        told = (messages.STARTED, number, pid, pidfd is not None)
        self._lifeline.send(told, *([] if pidfd is None else [pidfd]))

    def _reap(self, key: int, child: _Child) -> None:
        ended = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return
        # Not reaped yet, so its number, which is its group's too, is still its own:
        # what its jobs have left running goes with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        pid, status, usage = os.wait4(child.pid, 0)
        ended_at = time.monotonic()
        del self._children[key]
        if child.pidfd is not None:
            self._poll.unregister(child.pidfd)
            os.close(child.pidfd)
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes, or KiB
        code = os.waitstatus_to_exitcode(status)
        peak = usage.ru_maxrss * unit
        answer = (messages.EXITED, child.worker, pid, code, peak, ended_at)
        self._lifeline.send(answer)

    def _sweep(self) -> None:
        """Kill what workers that have ended left running; forget what has ended.

        A killed one's own children come here in turn, and its end calls for the next
        sweep. What a module started that was imported here bears no mark: it stays.
        """
        workers = {child.pid for child in self._children.values()}
        marks = {self._own_mark, None, *(c.mark for c in self._children.values())}
        for pid in leftovers.children():
            if pid not in workers:
                mark = leftovers.mark_of(pid)
                if mark not in marks:
                    _kill(pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _learn(self, module: str) -> None:
        """Import a module that a worker has found to be harmless; undo is impossible.

        The worker saw no thread begin. Should one begin here all the same, the parent
        is told and replaces this process, because forking beside a thread is not safe.
        """
        before = worker.thread_count()
        reason = ""
        try:
            importlib.import_module(module)
            if worker.thread_count() != before:
                reason = "its import starts a thread"
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
        gc.collect()
        gc.freeze()
        alone = worker.thread_count() == 1
        self._lifeline.send((messages.LEARNED, module, reason, alone))

    def _signal(self, number: int, signum: int) -> None:
        """Signal a worker for a parent that has no pidfd of it."""
        for child in self._children.values():
            if child.worker == number:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signum)

    def _become_worker(
        self, forkserver: int, number: int, address: str, files: tuple[int, ...]
    ) -> NoReturn:
        code = 1
        try:
            # Ctrl-C is for the parent; a kill takes grandchildren along.
            os.setpgid(0, 0)
            leftovers.bear(leftovers.make_mark(self._brand, self._forks))
            if not ties.tie_to_parent(forkserver, signal.SIGKILL):
                os._exit(code)
            self._let_go()
            gc.enable()
            code = worker.main(number, address, files, self._setup)
        except BaseException:
            traceback.print_exc()
        finally:
            # Not sys.exit: the stack below belongs to the forkserver.
            os._exit(code)

    def _let_go(self) -> None:
        """Close what only the forkserver may hold: the lifeline would never end."""
        self._lifeline.close()
        if self._parent is not None:
            os.close(self._parent)
        if self._wakeup is not None:
            self._wakeup.close()
        for child in self._children.values():
            if child.pidfd is not None:
                os.close(child.pidfd)

    def _end_children(self) -> None:
        for child in self._children.values():
            for kill in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    kill(child.pid, signal.SIGKILL)
        for child in self._children.values():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child.pid, 0)
        # Each kill may bring more orphans. Those of another user are not waited for.
        while self._adopts and sum(map(_kill, leftovers.children())):
            os.waitpid(-1, 0)


class _WakeUp:
    """Tells of ended children where the system has no pidfd (macOS)."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda signum, frame: None)
        signal.set_wakeup_fd(self._writer.fileno())

    def fileno(self) -> int:
        return self._reader.fileno()

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._reader.recv(4096)

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._reader.close()
        self._writer.close()


def _kill(pid: int) -> bool:
    """Kill a child; False if this process may not, or it was reaped."""
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _close_all(descriptors: tuple[int, ...]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def main(line: int, parent: int, folder: str, brand: int, preload: list[str]) -> None:
    """Run a forkserver until its parent is gone.

    Args:
        line: descriptor of its end of the lifeline.
        parent: process id of the parent, to notice one that died meanwhile.
        folder: directory to be removed at the end.
        brand: a number that no other forkserver has.
        preload: names of modules to import before the first fork.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    context.set_source(lambda: None)  # what is imported from here on is for workers
    os.set_inheritable(line, False)
    watched = ties.open_parent(parent)
    alive = ties.tie_to_parent(parent, signal.SIGCONT)
    with contextlib.closing(Lifeline(socket.socket(fileno=line))) as lifeline:
        if alive and _preload_guarded(lifeline, preload, watched, folder):
            # Frozen objects are never visited by a child's collector, so their pages
            # stay shared.
            gc.collect()
            gc.freeze()
            gc.disable()
            lifeline.send((messages.LISTENING, os.getpid()))
            Forkserver(lifeline, watched, folder, brand).serve()
        if os.getppid() != parent:
            _remove(folder)


def _preload_guarded(
    lifeline: Lifeline, modules: list[str], parent: int | None, folder: str
) -> bool:
    """Do what `_preload` does, and do not outlive the parent meanwhile.

    An import may take for ever, and nobody looks at the lifeline then. A fork of this
    process does, for as long as the import lasts.
    """
    if not modules:
        return True
    theirs, ours = os.pipe()
    forkserver = os.getpid()
    guard = os.fork()
    if guard == 0:
        os.close(ours)
        _guard(forkserver, theirs, lifeline.fileno(), parent, folder)
    os.close(theirs)
    try:
        return _preload(lifeline, modules)
    finally:
        os.close(ours)
        os.waitpid(guard, 0)


def _guard(
    forkserver: int, done: int, line: int, parent: int | None, folder: str
) -> NoReturn:
    """Kill the forkserver if its parent goes before `done` tells of the end."""
    try:
        poll = select.poll()
        poll.register(done)
        poll.register(line, 0)  # orders are not for us, its end is
        if parent is not None:
            poll.register(parent, select.POLLIN)
        ended = {descriptor for descriptor, _ in poll.poll()}
        if done not in ended:
            os.kill(forkserver, signal.SIGKILL)
            # A parent that only hung up needs its folder; one that dies lets go of
            # the line a moment before it is dead.
            if parent is not None and select.select([parent], [], [], 0.05)[0]:
                _remove(folder)
    finally:
        os._exit(0)


def _remove(folder: str) -> None:
    import shutil  # brings compression along: not what every start should wait for

    shutil.rmtree(folder, ignore_errors=True)


def _preload(lifeline: Lifeline, modules: list[str]) -> bool:
    """Import what the user named; says why, and returns False, if that cannot be."""
    for module in modules:
        try:
            importlib.import_module(module)
        except BaseException:
            lifeline.send((messages.FAILED, module, traceback.format_exc()))
            return False
    if worker.thread_count() > 1:
        names = ", ".join(modules)
        text = f"importing {names} started a thread; no worker can be forked beside one"
        lifeline.send((messages.FAILED, names, text))
        return False
    return True
