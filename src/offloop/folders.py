"""A directory for a pool's sockets: only this user can enter, and nobody need tidy up.

    made ──▶ locked, for as long as its process lives ──▶ removed
                        │ the process and its forkserver were killed together
                        ▼
                     no lock ──▶ removed by the next pool of this user

The pool removes its directory when it ends; its forkserver, if the program was killed.
When both are killed at the same moment, as with a process group or a container, nobody
is left to do it: the lock is gone then, and tells the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time

from offloop.errors import StartError

_PREFIX = "offloop-pool-"

# A Unix socket's path may have 107 bytes; a worker's name needs the rest.
_LONGEST = 80

# Seconds for which a directory without a lock is left alone: it may be a new one.
_YOUNG = 60.0


class Folder:
    """A new directory of this process.

    Raises:
        StartError: none can be made.
    """

    def __init__(self) -> None:
        #: where it is
        self.path = _make()
        #: holds the lock
        self._descriptor: int | None = None
        with contextlib.suppress(OSError):  # some file systems have no locks
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def remove(self) -> None:
        """Remove the directory, which is empty by now."""
        with contextlib.suppress(OSError):  # somebody may have tidied up
            os.rmdir(self.path)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def remove_abandoned(beside: str) -> None:
    """Remove directories of this user whose processes have gone.

    Looks where `beside` lies, which may be full of files of others: not a thing to do
    on an event loop's thread.
    """
    with (
        contextlib.suppress(OSError),
        os.scandir(os.path.dirname(beside)) as entries,
    ):
        for entry in entries:
            if entry.name.startswith(_PREFIX):
                with contextlib.suppress(OSError):  # it has just been removed
                    _remove_if_abandoned(entry.path)


def _remove_if_abandoned(path: str) -> None:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        found = os.fstat(descriptor)
        young = time.time() - found.st_mtime < _YOUNG
        if found.st_uid == os.geteuid() and not young:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)


def _make() -> str:
    base = os.environ.get("OFFLOOP_RUNTIME_DIR") or os.environ.get("XDG_RUNTIME_DIR")
    for folder in (base, tempfile.gettempdir(), "/tmp"):
        if folder and len(os.fsencode(folder)) <= _LONGEST:
            with contextlib.suppress(OSError):
                return tempfile.mkdtemp(prefix=_PREFIX, dir=folder)
    raise StartError(
        "no directory can be made for the pool's sockets: set OFFLOOP_RUNTIME_DIR to "
        f"one that is writable and whose path has at most {_LONGEST} bytes"
    )
