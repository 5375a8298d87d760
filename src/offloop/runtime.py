"""Where processes of one user find each other: one directory of sockets for each name.

    OFFLOOP_RUNTIME_DIR or XDG_RUNTIME_DIR or the temporary directory
    └── offloop-UID              0700, and ours: nobody else can enter
        └── NAME                 "default" unless another one is given
            └── pool.sock        the door of the coordinator of a shared pool

Permissions of the directory keep other users out. A process that comes through a door
is asked for its user all the same, by the kernel. Nothing is ever trusted that lies in
a directory of somebody else.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import struct
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from offloop.errors import StartError, UsageError

#: the variable that tells a program where the door of its coordinator is
DOOR_VARIABLE = "OFFLOOP_COORDINATOR"

#: name of a shared pool that was given none
DEFAULT_NAME = "default"

# A Unix socket's path may have 107 bytes; the names below a home are short.
_LONGEST_HOME = 88

_NAME = re.compile(r"[A-Za-z0-9._-]{1,40}")

_CREDENTIALS = struct.Struct("3i")


class Peer(NamedTuple):
    """Who is at the other end of a Unix socket.

    Attributes:
        pid: its process id; 0 if it lives where its number means nothing here.
        uid: its user.
    """

    pid: int
    uid: int


def home_of(name: str) -> Path:
    """Return the directory of a name, which need not exist.

    Raises:
        UsageError: it is no name, or the path would be too long for a socket.
    """
    if not _NAME.fullmatch(name) or name in (".", ".."):
        raise UsageError(
            f"{name!r} is no name for a shared pool: use letters, digits, '.', '_', '-'"
        )
    base = os.environ.get("OFFLOOP_RUNTIME_DIR") or os.environ.get("XDG_RUNTIME_DIR")
    home = Path(base or tempfile.gettempdir(), f"offloop-{os.getuid()}", name)
    if len(os.fsencode(home)) > _LONGEST_HOME:
        raise UsageError(
            f"{home} is too long for the path of a socket: set OFFLOOP_RUNTIME_DIR to "
            "a shorter one"
        )
    return home


def make_home(name: str) -> Path:
    """Make the directory of a name, if it is not there, and return it.

    Raises:
        StartError: it cannot be made, or is not ours alone.
        UsageError: it is no name.
    """
    home = home_of(name)
    for folder in (home.parent, home):
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StartError(
                f"no directory for the sockets of {name!r}: {error}; set "
                "OFFLOOP_RUNTIME_DIR to one that exists and is writable"
            ) from None
        trouble = trouble_with(folder)
        if trouble:
            raise StartError(trouble)
    return home


def leave_home(home: Path) -> None:
    """Remove the directory of a name if nothing is in it any more."""
    for folder in (home, home.parent):
        with contextlib.suppress(OSError):
            folder.rmdir()


def trouble_with(folder: Path) -> str:
    """Return why what lies in a directory cannot be trusted; "" if it can."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return f"{folder} is not a directory of this user: remove it, or ask its owner"
    if found.st_mode & 0o077:
        return f"other users may enter {folder}: chmod 700 {folder}"
    return ""


def door_of(engine: str) -> Path:
    """Return where the coordinator of an engine named "shared..." is to be found.

    Raises:
        UsageError: the name after "shared://" is none.
    """
    name = engine.partition("://")[2]
    given = os.environ.get(DOOR_VARIABLE)
    if given and not name:
        return Path(given)
    return home_of(name or DEFAULT_NAME) / "pool.sock"


def peer_of(connection: socket.socket) -> Peer:
    """Return who is at the other end, as the kernel says."""
    assert sys.platform == "linux"
    option = socket.SO_PEERCRED
    raw = connection.getsockopt(socket.SOL_SOCKET, option, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return Peer(pid, uid)
