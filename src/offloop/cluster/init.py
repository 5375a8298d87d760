"""What the first process of a container has to do beside its work proper.

    kernel ──▶ process 1 ──fork──▶ primary
    signals ──▶ passed on ───────▶
                reaps whoever has lost its parent; ends as the primary does

Signals that a first process has no handler for are ignored by the kernel, processes
whose parent has gone become its children, and when it ends, all do. So it does nothing
but that, and the primary is a child of its: one that may even leave its place to a new
one, which this process learns as a service manager does (MAINPID, see `notify`).
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import tempfile
from typing import NoReturn

# What the primary has handlers for, beside SIGCHLD, which is this process's own.
_PASSED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU),
    signal.SIGWINCH,
)

_ROOM = 4096


def stand_aside() -> None:
    """Go on in a child, if this is the first process of all.

    Call it before there is a second thread or a loop. In any other process it does
    nothing.
    """
    if os.getpid() != 1 or os.environ.get("NOTIFY_SOCKET"):
        return
    folder = tempfile.mkdtemp(prefix="offloop-init-")
    path = os.path.join(folder, "notify")
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(path)
    pid = os.fork()
    if pid:
        _watch(pid, told, folder)
    told.close()
    # Ctrl-C is for process 1, which passes it on: once is enough.
    os.setpgid(0, 0)
    os.environ["NOTIFY_SOCKET"] = path


def _watch(main: int, told: socket.socket, folder: str) -> NoReturn:
    """Do what a first process has to, until the main one has ended."""
    told.setblocking(False)
    waker, woken = socket.socketpair()
    for end in (waker, woken):
        end.setblocking(False)
    signal.set_wakeup_fd(woken.fileno(), warn_on_full_buffer=False)
    for number in (*_PASSED, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    while True:
        select.select([waker, told], [], [])
        main = _heard(told, main)
        with contextlib.suppress(BlockingIOError):
            for come in set(waker.recv(_ROOM)) - {signal.SIGCHLD}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(main, come)
        code = _reap(main)
        if code is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(code)


def _heard(told: socket.socket, main: int) -> int:
    """Return which process is the main one, as that itself says."""
    with contextlib.suppress(BlockingIOError):
        while True:
            for line in told.recv(_ROOM).decode(errors="replace").splitlines():
                word, _, value = line.partition("=")
                if word == "MAINPID" and value.isdigit():
                    main = int(value)
    return main


def _reap(main: int) -> int | None:
    """Reap all that has ended; returns the main one's exit code, if it has."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            if pid == main:
                code = os.waitstatus_to_exitcode(status)
    # As a shell tells of a process that a signal has ended.
    return 128 - code if code is not None and code < 0 else code
