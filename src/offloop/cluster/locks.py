"""Files that one process has to itself for as long as it lives.

A lock of the kernel's goes with its process, however that ends; so a file that is left
behind is taken over, and a process number that was used again misleads nobody.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from offloop.errors import StartError


def lock(path: Path, refusal: str) -> int:
    """Lock a file, which is made if it is not there; returns its descriptor.

    Raises:
        StartError: another process has it; says `refusal`.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:  # whoever had it has just removed it
            pass
        except OSError:
            os.close(descriptor)
            raise StartError(refusal) from None
        os.close(descriptor)


def seize(path: Path, text: str = "") -> int:
    """Put a locked file in the place of another one, whose owner leaves it to this one.

    Args:
        path: of the file, which is there at every moment.
        text: what it holds from the first moment.

    Returns:
        Its descriptor.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    descriptor = os.open(fresh, flags, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.write(descriptor, text.encode())
    os.replace(fresh, path)
    return descriptor


def let_go(path: Path, descriptor: int) -> None:
    """Remove a locked file, unless another one has its name by now, and unlock it."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_ino == os.fstat(descriptor).st_ino:
            path.unlink()
    os.close(descriptor)


class PidFile:
    """A file with the number of this process in it.

    Args:
        path: of the file.
        seized: its owner leaves it to this process.

    Raises:
        StartError: a process that lives has it, or it cannot be written.
    """

    def __init__(self, path: str, *, seized: bool = False) -> None:
        self._path = Path(path)
        number = f"{os.getpid()}\n"
        if seized:
            self._lock = seize(self._path, number)
            os.fchmod(self._lock, 0o644)
            return
        try:
            with open(path) as file:
                owner = file.read().strip()
        except (OSError, UnicodeDecodeError):
            owner = ""
        try:
            self._lock = lock(
                self._path, f"{path} belongs to process {owner or '?'}, which lives"
            )
        except OSError as error:
            raise StartError(f"no pid file can be written: {error}") from None
        os.fchmod(self._lock, 0o644)
        os.ftruncate(self._lock, 0)
        os.write(self._lock, number.encode())

    def close(self) -> None:
        """Remove it, unless another process has it by now."""
        let_go(self._path, self._lock)
