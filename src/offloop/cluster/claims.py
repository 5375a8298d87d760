"""The names in its home by which the outside world finds a primary.

    serve.lock, pool.lock        held while it lives: there is one of each
    serve.sock                   to operate it (`control`)
    pool.sock ──▶ pool-PID.sock  the door of its coordinator
    a pid file, anywhere

A primary that takes the place of one that lives makes each name anew and renames it
over the other's, so that nobody finds one missing at any moment. Whoever leaves removes
what is still its own.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from offloop.cluster.locks import PidFile, let_go, lock, seize

if TYPE_CHECKING:
    from pathlib import Path

#: name of the file that the owner of a shared pool has locked
POOL_LOCK = "pool.lock"

_SERVE_LOCK = "serve.lock"
_POOL = "pool.sock"


class Claims:
    """The names of one primary.

    Args:
        home: directory of this user alone.
        pool: it has a shared pool.
        pidfile: path of a file for its process id; "": none.
    """

    def __init__(self, home: Path, *, pool: bool, pidfile: str) -> None:
        self._home = home
        self._pool = pool
        self._path_of_pid = pidfile
        #: where clients find its coordinator
        self.door = home / f"pool-{os.getpid()}.sock"
        #: descriptors of locked files, by name
        self._locks: dict[str, int] = {}
        self._pidfile: PidFile | None = None

    def claim(self) -> None:
        """Take the names, none of which may belong to a process that lives.

        Raises:
            StartError: one of them does, or cannot be had.
        """
        try:
            self._lock(_SERVE_LOCK, _serve_refusal(self._home))
            if self._pool:
                self._lock(POOL_LOCK, pool_refusal(self._home))
                for left in self._home.glob("pool-*.sock*"):  # of one that was killed
                    left.unlink()
                self._point()
            if self._path_of_pid:
                self._pidfile = PidFile(self._path_of_pid)
        except BaseException:
            self.release()
            raise

    def seize(self) -> None:
        """Take the names from a primary that leaves them to this one."""
        self.forget()
        self._locks[_SERVE_LOCK] = seize(self._home / _SERVE_LOCK)
        if self._pool:
            self._locks[POOL_LOCK] = seize(self._home / POOL_LOCK)
            self._point()
        if self._path_of_pid:
            self._pidfile = PidFile(self._path_of_pid, seized=True)

    def release(self) -> None:
        """Remove those names that are still this primary's."""
        if self._pool and self._locks:
            path = self._home / _POOL
            with contextlib.suppress(OSError):  # it is another one's
                if os.readlink(path) == self.door.name:
                    path.unlink()
        if self._pool:
            self.door.unlink(missing_ok=True)  # of a coordinator that was killed
        self.forget()

    def forget(self) -> None:
        """Let locked files go."""
        for name, descriptor in self._locks.items():
            let_go(self._home / name, descriptor)
        self._locks.clear()
        if self._pidfile is not None:
            self._pidfile.close()
            self._pidfile = None

    def _lock(self, name: str, refusal: str) -> None:
        self._locks[name] = lock(self._home / name, refusal)

    def _point(self) -> None:
        """Let those who look for the pool find this one's."""
        fresh = self.door.with_name(f"{self.door.name}.new")
        fresh.symlink_to(self.door.name)
        fresh.replace(self._home / _POOL)


def _serve_refusal(home: Path) -> str:
    return (
        f"there is an `offloop serve APP` at {home} already: stop that one, or give "
        "this one another name (--name)"
    )


def pool_refusal(home: Path) -> str:
    """Return why there can be no other shared pool in a home."""
    return (
        f"there is a coordinator at {home} already: stop that one, or give this one "
        "another name (--name)"
    )
