"""What systemd, or whoever speaks like it, is told, and what it hands down.

    NOTIFY_SOCKET ◀── READY=1, RELOADING=1, STOPPING=1, STATUS=..., WATCHDOG=1
    LISTEN_FDS ──▶ sockets that it has opened before anything was started

Without these variables nobody is told anything. It waits for nobody.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time

from offloop.cluster.binding import Bound

# The descriptors that are handed down begin here.
_FIRST = 3


class Notifier:
    """Tells the service manager how it goes."""

    def __init__(self) -> None:
        #: taken away, as it is not meant for children
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        asked = os.environ.pop("WATCHDOG_USEC", "")
        watched = os.environ.pop("WATCHDOG_PID", str(os.getpid()))
        mine = watched == str(os.getpid()) and asked.isdigit()
        #: seconds within which it wants a sign of life; 0.0: none
        self.watchdog = int(asked) / 1e6 if mine else 0.0
        #: another process is the main one: the manager would not listen to this one
        self.muted = False

    def for_successor(self) -> dict[str, str]:
        """Return variables by which another process finds the manager."""
        found = {"NOTIFY_SOCKET": self._address} if self._address else {}
        if self.watchdog:
            found["WATCHDOG_USEC"] = str(round(self.watchdog * 1e6))
        return found

    def tell(self, *assignments: str) -> None:
        """Tell something, such as "READY=1"."""
        if not self._address or self.muted:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with (
            contextlib.suppress(OSError),  # it has gone, or does not listen
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line,
        ):
            line.setblocking(False)
            line.sendto("\n".join(assignments).encode(), address)

    def tell_reloading(self) -> None:
        """Tell that a reload begins; READY=1 tells of its end."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.tell("RELOADING=1", f"MONOTONIC_USEC={now}")


def inherited(scheme: str = "http") -> list[Bound]:
    """Return the sockets that were opened for this process, if there are any."""
    count = os.environ.pop("LISTEN_FDS", "")
    owner = os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if owner != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for descriptor in range(_FIRST, _FIRST + int(count)):
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
        listener.setblocking(False)
        where = listener.getsockname()
        if listener.family == socket.AF_UNIX:
            found.append(Bound(listener, f"unix:{where}"))  # its path is not ours
        else:
            host = f"[{where[0]}]" if ":" in where[0] else where[0]
            found.append(Bound(listener, f"{scheme}://{host}:{where[1]}"))
    return found
