"""A file in memory that no path leads to, and that is as large as what is in it.

What has no memory yet gets it by being written or reserved here, and lack of memory is
an error of that call. Writing it through a mapping instead could only be answered by
the signal SIGBUS, which ends the process.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os

from offloop.wire.headroom import Headroom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: punches a hole; where that is missing, the kernel refuses the number
_MADV_REMOVE = getattr(mmap, "MADV_REMOVE", -1)
#: bytes that are taken before the next look at how much there is
_GRANT = 8 * 1024 * 1024
_NO_MEMORY = (errno.ENOSPC, errno.ENOMEM, errno.EFBIG, errno.EDQUOT)


def create_file(size: int, name: str = "offloop-arena", *, written: bool = True) -> int:
    """Return the descriptor of a new sparse file, all zero.

    Programs that this process starts do not inherit it.

    Args:
        size: in bytes.
        name: by which people find it among the mappings of a process.
        written: what is in it comes by `SparseFile`. If by a mapping, it should lie
            where memory is unlikely to be short.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    else:
        segment = _create_segment() if written else None
        descriptor = _create_unlinked() if segment is None else segment
    os.ftruncate(descriptor, size)
    return descriptor


def _create_segment() -> int | None:
    """Return the descriptor of a POSIX segment without a name; None: there is none.

    What has no memory yet must be written by `os.pwrite`, which some systems refuse for
    segments (macOS does).
    """
    name = f"/offloop-{os.urandom(8).hex()}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
    try:
        import _posixshmem as posix  # what `multiprocessing.shared_memory` is made of

        descriptor: int = posix.shm_open(name, flags, mode=0o600)
    except (ImportError, OSError):
        return None
    posix.shm_unlink(name)
    with contextlib.suppress(OSError):
        os.pread(descriptor, 1, 0)
        return descriptor
    os.close(descriptor)
    return None


def _create_unlinked() -> int:
    import tempfile  # brings much along that a worker does without

    with tempfile.TemporaryFile(prefix="offloop-") as file:
        return os.dup(file.fileno())


def punch(mapping: mmap.mmap, offset: int, size: int) -> None:
    """Give the memory of a part back: 0.13 ms a megabyte, with the GIL held.

    Not every system can. Then the memory stays until the part is written again.
    """
    with contextlib.suppress(OSError):
        mapping.madvise(_MADV_REMOVE, offset, size)


class SparseFile:
    """The writer's descriptor, closed when the last one who refers to it has gone.

    So it is never closed, and its number used for another file, while some thread is
    writing.

    Args:
        descriptor: owned by this object from now on.
        headroom: knows how much memory there is.
    """

    __slots__ = ("_granted", "descriptor", "headroom")

    def __init__(self, descriptor: int, headroom: Headroom | None = None) -> None:
        self.descriptor = descriptor
        self.headroom = headroom or Headroom()
        #: bytes that may be taken before the next look at how much there is
        self._granted = 0

    def __del__(self) -> None:
        os.close(self.descriptor)

    def write(self, data: memoryview, offset: int) -> None:
        """Write all bytes, with the GIL released.

        Raises:
            MemoryError: there is no memory for them.
        """
        self._take(len(data))
        with _lack_of_memory(len(data)):
            _write_all(self.descriptor, data, offset)

    def reserve(self, offset: int, size: int) -> None:
        """Give memory to a part that has none yet, with the GIL released.

        Raises:
            MemoryError: there is none.
        """
        self._take(size)
        with _lack_of_memory(size):
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self.descriptor, offset, size)
            else:
                _write_all(self.descriptor, memoryview(bytes(size)), offset)

    def _take(self, size: int) -> None:
        """Account for memory; several threads may do so, and err by a little."""
        if size > self._granted:
            self._granted = max(size, min(self.headroom.claim(size), _GRANT))
        self._granted -= size


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data = data[written:]
        offset += written


@contextlib.contextmanager
def _lack_of_memory(size: int) -> Iterator[None]:
    """Say in Python's words what the kernel says when there is no memory."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_MEMORY:
            raise
        raise MemoryError(
            f"no shared memory for {size} more bytes: {error}. The machine or its "
            "container has less memory than the arena may take, or others use it: "
            "lower the limit of the arena, or send less at once"
        ) from error
