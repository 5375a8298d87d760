"""Finds what can be watched: pools and `offloop serve` of this user.

OFFLOOP_RUNTIME_DIR, XDG_RUNTIME_DIR, temporary directories
├── offloop-xxxxxxxx/control.sock      a pool
└── offloop-UID/NAME/serve.sock        an `offloop serve APP`, whose shared pool
                                       is one of those pools
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offloop import runtime
from offloop.control import Line
from offloop.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterator

_POOL = "control.sock"
_SERVE = "serve.sock"

# Seconds that each has to say who it is.
_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """Something that can be watched.

    Attributes:
        name: of the pool, or of the `offloop serve`.
        pid: of the program, or of the primary.
        program: its command line, or what it serves.
        pool: socket of the pool; None if there is none now.
        serve: socket of the primary; None if it is only a pool.
    """

    name: str
    pid: int
    program: str
    pool: Path | None
    serve: Path | None = None

    def __str__(self) -> str:
        what = "offloop serve" if self.serve else "pool"
        return f"{what} {self.name!r}, pid {self.pid}: {self.program}"


def find() -> list[Target]:
    """Return all that can be watched: clusters first, then pools, by process."""
    pools = {}
    for path in _sockets(_POOL, ""):
        told = _ask(path)
        if told is not None:
            pools[path] = told
    targets = []
    for path in _sockets(_SERVE, "*"):
        told = _ask(path)
        if told is None:
            continue
        pids = {one["pid"] for one in told["coordinators"]}
        own = next((one for one, its in pools.items() if its["pid"] in pids), None)
        if own is not None:
            del pools[own]
        targets.append(Target(path.parent.name, told["pid"], told["app"], own, path))
    alone = [
        Target(told["pool"], told["pid"], told["program"], path)
        for path, told in pools.items()
    ]
    return sorted(targets, key=_order) + sorted(alone, key=_order)


def _order(target: Target) -> tuple[int, str]:
    return target.pid, target.name


def choose(targets: list[Target], wanted: str) -> Target:
    """Return the one that somebody means.

    Args:
        targets: all that there are.
        wanted: a process id or a name; "": whichever comes first.

    Raises:
        StartError: there is none of that kind.
    """
    for target in targets:
        if wanted in ("", str(target.pid), target.name):
            return target
    if not targets:
        raise StartError(
            "nothing runs here that can be watched: no program of this user has a "
            "Pool open, or it uses another OFFLOOP_RUNTIME_DIR"
        )
    known = "\n".join(f"  {target}" for target in targets)
    raise StartError(f"nothing is called {wanted!r}; there are:\n{known}")


def _sockets(name: str, below: str) -> Iterator[Path]:
    """Yield sockets of that name in directories of this user alone."""
    seen = set()
    for base in _bases():
        for folder in sorted(Path(base).glob("offloop-*")):
            with contextlib.suppress(OSError):
                if folder in seen or runtime.trouble_with(folder):
                    continue
                seen.add(folder)
                yield from sorted(folder.glob(f"{below}/{name}" if below else name))


def _bases() -> list[str]:
    """Return where such directories may be."""
    given = [os.environ.get("OFFLOOP_RUNTIME_DIR"), os.environ.get("XDG_RUNTIME_DIR")]
    return [base for base in (*given, tempfile.gettempdir(), "/tmp") if base]


def _ask(path: Path) -> dict[str, Any] | None:
    """Return what it says of itself; None if nobody is there, or nobody answers."""
    try:
        with Line(path, _PATIENCE) as line:
            told = line.ask("status")
    except (OSError, ValueError, StartError):
        return None
    return told if told["ok"] else None
