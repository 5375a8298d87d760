"""What a new primary gets of the one whose place it takes: sockets, and the say.

It is started with a line to the old one, hears over it what there is, and tells it over
the line when it can do all the work, or that it never will. If the old one dies before
that, this one ends at once: whoever wanted something of it is gone. `upgrade` is the
other side, and draws both.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import TYPE_CHECKING, Any

from offloop import messages
from offloop.cluster.binding import Bound
from offloop.cluster.child import ChildLine
from offloop.errors import StartError
from offloop.wire.lifeline import Lifeline

if TYPE_CHECKING:
    from offloop.cluster.notify import Notifier

#: tells a new primary its end of the line, and who holds the other one
VARIABLE = "OFFLOOP_HERITAGE"


class Heritage:
    """What the old primary leaves.

    Args:
        line: to it, which has said nothing yet.
    """

    def __init__(self, line: Lifeline) -> None:
        self._sockets: list[Bound] = []
        #: servers that somebody has scaled it to; 0: nobody has
        self.wanted = 0
        #: why no more requests should come; "" if they may
        self.unready = ""
        #: the old primary has let go of everything
        self.settled = False
        self._gone: asyncio.Future[None] | None = None
        while not self._receive(line):
            if line.ended:
                os._exit(1)
        self._line = ChildLine(line)

    def _receive(self, line: Lifeline) -> bool:
        """Take what has come; True if that was all."""
        for kind, *details in line.receive():
            if kind == messages.SOCKET:
                self._take_socket(line.take_descriptor(), *details)
            else:
                assert kind == messages.INHERIT
                self.wanted, self.unready = details
                for number in (1, 2):  # until now they led to the old primary
                    descriptor = line.take_descriptor()
                    os.dup2(descriptor, number)
                    os.close(descriptor)
                return True
        return False

    def _take_socket(
        self, descriptor: int, address: str, url: str, path: str, made: Any
    ) -> None:
        listener = socket.socket(fileno=descriptor)
        listener.setblocking(False)
        bound = Bound(listener, url, address, path, tuple(made), ours=False)
        self._sockets.append(bound)

    def given(self) -> list[Bound]:
        """Return the sockets that somebody else has opened for the first primary."""
        return [one for one in self._sockets if not one.address]

    def take(self, address: str) -> Bound | None:
        """Return the socket that listens at an address, if there is one."""
        for one in self._sockets:
            if one.address == address:
                self._sockets.remove(one)
                return one
        return None

    def close(self) -> None:
        """Close sockets that nobody wants any more."""
        for one in self._sockets:
            if one.address:
                one.socket.close()
        self._sockets.clear()

    def listen(self) -> None:
        """Notice the old primary's end from now on, in the running loop."""
        self._line.listen(self._hear)

    def _hear(self, kind: int) -> None:
        assert kind == messages.GO
        assert self._gone is not None
        self._line.close()
        self._gone.set_result(None)

    def give_up(self, why: str) -> None:
        """Tell the old primary that it has to go on."""
        if not self.settled:
            self._line.say(messages.HOPELESS, why)

    async def settle(self, notifier: Notifier) -> None:
        """Tell the old primary that it may go, and wait until it does.

        Args:
            notifier: has the manager's ear once the old one has named this process.
        """
        self._gone = asyncio.get_running_loop().create_future()
        self._line.say(messages.TAKEN)
        await self._gone
        self.settled = True
        notifier.muted = False


def receive() -> Heritage | None:
    """Return what an old primary leaves to this process; None if it is the first one.

    Raises:
        StartError: whoever has left it is gone.
    """
    number, _, parent = os.environ.pop(VARIABLE, "").partition(":")
    if not number:
        return None
    if os.getppid() != int(parent):
        raise StartError("the primary whose place was to be taken has gone")
    os.set_inheritable(int(number), False)
    return Heritage(Lifeline(socket.socket(fileno=int(number))))
