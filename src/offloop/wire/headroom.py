"""How much memory there is before the kernel kills somebody for taking more.

A control group (a container) that has reached its limit gives no error to whoever
writes shared memory: the kernel ends one of its processes, and what is in shared memory
is not freed by that, so it may end them all. The same goes for a whole machine. So what
takes memory asks here first, and what is refused is an error of one call.

Nothing is reserved: others may take what is left, between the question and the use. For
them something is kept spare, and what is large asks again and again.
"""

from __future__ import annotations

import os

from offloop.groups import MEMBERSHIP, ROOT, own_groups

#: bytes that stay free for everything else: a share of the limit, or so many
_SHARE, _SPARE = 16, 64 * 1024 * 1024
#: a limit of so many bytes is none
_NO_LIMIT = 1 << 60
#: bytes of the longest file that is read here
_LONGEST = 64 * 1024

#: by version: files with the limit and the use, and what of the use can be taken back
_FILES = (
    ("memory.max", "memory.current", (b"inactive_file ", b"active_file ")),
    (
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        (b"total_inactive_file ", b"total_active_file "),
    ),
)


class Headroom:
    """Tells how much memory can be taken.

    Args:
        root: where the control groups are mounted.
        membership: the file that names this process's own groups.
        machine: the file that tells of the whole machine.
    """

    __slots__ = ("_groups", "_machine")

    def __init__(
        self,
        root: str = ROOT,
        membership: str = MEMBERSHIP,
        machine: str = "/proc/meminfo",
    ) -> None:
        #: folders of groups that may have a limit, and the names of their files
        self._groups: list[tuple[str, str, str, tuple[bytes, ...]]] = []
        seen = set()
        for folder in own_groups(root, membership, "memory"):
            for limit, used, reclaimable in _FILES:
                if folder not in seen and os.path.exists(os.path.join(folder, limit)):
                    seen.add(folder)
                    self._groups.append((folder, limit, used, reclaimable))
        self._machine = machine

    def claim(self, size: int) -> int:
        """Make sure that so many bytes can be taken.

        Returns:
            How many bytes could be taken: `size` or more.

        Raises:
            MemoryError: the kernel would have to kill a process.
        """
        left = self._left_on_machine()
        where = "the machine"
        for group in self._groups:
            left_in_group = _left_in_group(*group, size)
            if left_in_group < left:
                left, where = left_in_group, f"the control group {group[0]}"
        if left < size:
            raise MemoryError(
                f"no shared memory for {size} more bytes: {where} has "
                f"{max(left, 0)} bytes left that could be taken safely. Lower the "
                "limit of the arena, send less at once, or allow more memory"
            )
        return left

    def _left_on_machine(self) -> int:
        available = _figures(self._machine, (b"MemAvailable:", b"SwapFree:"))
        return available * 1024 - _SPARE if available else _NO_LIMIT


def _left_in_group(
    folder: str,
    limit_name: str,
    used_name: str,
    reclaimable: tuple[bytes, ...],
    size: int,
) -> int:
    """Return the bytes that a group can still take; a lower bound if that is enough."""
    limit = _number(f"{folder}/{limit_name}")
    if limit >= _NO_LIMIT:
        return _NO_LIMIT
    left = limit - _number(f"{folder}/{used_name}") - min(limit // _SHARE, _SPARE)
    if left < size:  # files that are cached go when there is need
        left += _figures(f"{folder}/memory.stat", reclaimable)
    return left


def _number(path: str) -> int:
    try:
        return int(_read(path))
    except ValueError:  # "max", or the group has gone
        return _NO_LIMIT


def _figures(path: str, names: tuple[bytes, ...]) -> int:
    """Return the sum of the figures with these names; 0 if there are none."""
    lines = _read(path).splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(names))


def _read(path: str) -> bytes:
    """Return what is in a file of the kernel's; nothing if there is none.

    A built-in `open` would take four times as long, and this is on every large write.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _LONGEST)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
