"""What a child of the primary does first, and its line to it.

    primary ──BEGIN (+ files), EMPLOY, RETIRE, PROBE──▶ child
            ◀──READY, LEAVING, CLOSED, RENEWED────────

A child is told what it is over the line. It does not outlive the primary: the kernel
kills it when the primary's main thread ends, whatever it does then; and the end of the
line, which says the same, ends a child of which the kernel does not know that.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from offloop import messages, ties
from offloop.wire.lifeline import Lifeline

if TYPE_CHECKING:
    from collections.abc import Callable

# What each kind of child runs: a function that takes its line, settings and files.
_ROLES = {
    "coordinator": "offloop.cluster.coordinate",
    "server": "offloop.cluster.server",
}


class ChildLine:
    """A child's end of the line.

    Args:
        line: to the primary.
    """

    def __init__(self, line: Lifeline) -> None:
        self._line = line
        self._hear: Callable[..., object] = lambda *message: None

    def listen(self, hear: Callable[..., object]) -> None:
        """Hear orders from now on, in the running loop.

        Args:
            hear: called with the parts of each message.
        """
        self._hear = hear
        os.set_blocking(self._line.fileno(), False)
        asyncio.get_running_loop().add_reader(self._line.fileno(), self._read)

    def say(self, *message: Any) -> None:
        """Tell the primary something; it is little, and the primary always listens."""
        self._line.send(message)
        self._line.flush()

    def take_descriptor(self) -> int:
        """Return the next descriptor that came with the message being heard."""
        return self._line.take_descriptor()

    def close(self) -> None:
        """Hear and say nothing any more."""
        asyncio.get_running_loop().remove_reader(self._line.fileno())
        self._line.close()

    def _read(self) -> None:
        for message in self._line.receive():
            self._hear(*message)
        if self._line.ended:
            os._exit(1)  # whoever wanted something of this process is gone


def main(line: int, parent: int) -> None:
    """Become what the primary says.

    Args:
        line: descriptor of this end of the line.
        parent: process id of the primary, to notice one that died meanwhile.
    """
    # Ctrl-C is for the primary, and so is its terminal's end.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(line, False)
    lifeline = Lifeline(socket.socket(fileno=line))
    if not ties.tie_to_parent(parent, signal.SIGKILL):
        os._exit(1)
    orders = lifeline.receive()
    while not orders and not lifeline.ended:
        orders = lifeline.receive()
    if not orders:
        os._exit(1)
    kind, role, settings, files = orders[0]
    assert kind == messages.BEGIN
    sys.path.insert(0, settings["app_dir"])
    descriptors = [lifeline.take_descriptor() for _ in range(files)]
    import_module(_ROLES[role]).run(ChildLine(lifeline), settings, descriptors)
