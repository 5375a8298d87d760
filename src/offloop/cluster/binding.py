"""Opens the sockets that servers listen on, and says what is wrong with an address.

    HOST:PORT   [::1]:8000   :8000 (all addresses)   unix:/run/app.sock

The primary opens them once and hands them down, so that they stay open whoever of its
children dies.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from dataclasses import dataclass

from offloop.errors import StartError, UsageError

# Connections that the kernel keeps for the servers, if its own limit lets it.
_BACKLOG = 2048

_UNIX = "unix:"


@dataclass(slots=True)
class Bound:
    """A socket that listens.

    Attributes:
        socket: it.
        url: how people reach it.
        address: by which it was asked for; "" if somebody else has opened it.
        path: of a Unix socket, "" of another one.
        made: how to know that path again.
        ours: the path goes when this process listens no more.
    """

    socket: socket.socket
    url: str
    address: str = ""
    path: str = ""
    made: tuple[int, int] = (0, 0)
    ours: bool = True

    def close(self) -> None:
        """Listen no more, and remove the path if it is still this socket's."""
        self.socket.close()
        if self.path and self.ours:
            with contextlib.suppress(OSError):
                if _identity(self.path) == self.made:
                    os.unlink(self.path)


def bind(address: str, scheme: str = "http") -> Bound:
    """Listen at an address.

    Args:
        address: as above.
        scheme: of the URL.

    Raises:
        UsageError: it is no address.
        StartError: it cannot be had.
    """
    if address.startswith(_UNIX):
        return _bind_path(address.removeprefix(_UNIX))
    host, port = _parse(address)
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _refused(address, error) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _refused(address, error) from None
    listener.setblocking(False)
    name, port = listener.getsockname()[:2]
    name = f"[{name}]" if ":" in name else name
    return Bound(listener, f"{scheme}://{name}:{port}", address)


def neighbour(address: str, distance: int) -> str:
    """Return HOST:PORT with a port that is so much higher; port 0 stays: any free one.

    Raises:
        UsageError: it is no such address.
    """
    _, port = _parse(address)
    host = address.rpartition(":")[0]
    return f"{host}:{port + distance if port else 0}"


def _parse(address: str) -> tuple[str | None, int]:
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise UsageError(
            f"{address!r} is no address to listen at: use HOST:PORT, or unix:PATH"
        )
    return host.removeprefix("[").removesuffix("]") or None, int(port)


def _bind_path(path: str) -> Bound:
    listener = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(path)
        listener.bind(path)
        os.chmod(path, 0o666)  # who may come is for its directory to say
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _refused(_UNIX + path, error) from None
    listener.setblocking(False)
    address = _UNIX + path
    return Bound(listener, address, address, path, _identity(path))


def _identity(path: str) -> tuple[int, int]:
    """Return what no later file at this path has: an inode alone may be used again."""
    found = os.stat(path)
    return found.st_ino, found.st_ctime_ns


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens on any more."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            return  # the bind will say so
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as trial:
        try:
            trial.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def _refused(address: str, error: OSError) -> StartError:
    return StartError(
        f"nobody can listen at {address}: {error.strerror or error}; is there another "
        "program, or is the port below 1024?"
    )
