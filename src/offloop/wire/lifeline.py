"""A line between two processes: small messages, and descriptors.

    a parent ── its forkserver          a client of a shared pool ── its coordinator

A Unix stream socket that no other process holds. That makes its end a certain sign:
when one side dies, however it dies, the other one reads end of file. A pool's own jobs
never travel here; those of a client do: between two event loops a plain socket is
quicker than ZeroMQ, whose threads must be woken too, and it carries descriptors.

A message is four bytes of length, then plain values as `marshal` writes them.
Descriptors arrive no later than the message that they belong to.
"""

from __future__ import annotations

import array
import marshal
import os
import socket
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Message = tuple[Any, ...]

_CHUNK = 65536
_MAX_DESCRIPTORS = 64


class Lifeline:
    """One end of the line.

    Args:
        line: a connected Unix stream socket, owned by this object from now on.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        #: bytes that arrived and are not a whole message yet
        self._incoming = bytearray()
        #: descriptors that arrived, in order; each belongs to a message that wants one
        self._descriptors: deque[int] = deque()
        #: messages that the kernel had no room for yet, with descriptors of our own
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        #: True once the other end is gone
        self.ended = False

    @classmethod
    def pair(cls) -> tuple[Lifeline, socket.socket]:
        """Return this process's end, non-blocking, and the socket for the other one."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        return cls(ours), theirs

    def fileno(self) -> int:
        return self._line.fileno()

    def send(self, message: Message, *descriptors: int) -> None:
        """Send a message and copies of descriptors; the rest is for `flush`."""
        body = marshal.dumps(message, 2)
        data = len(body).to_bytes(4, "little") + body
        if not self._unsent:
            data = self._try(data, descriptors)
            if not data:
                return
            if len(data) < 4 + len(body):
                descriptors = ()  # they go with the first byte
        self._unsent.append((data, [os.dup(one) for one in descriptors]))

    def flush(self) -> bool:
        """Send what waits; True when nothing does any more."""
        while self._unsent:
            data, descriptors = self._unsent[0]
            rest = self._try(data, descriptors)
            if len(rest) < len(data):
                self._unsent[0] = (rest, [])
                _close_all(descriptors)
            if rest:
                return False
            self._unsent.popleft()
        return True

    def _try(self, data: bytes, descriptors: Sequence[int]) -> bytes:
        """Return what the kernel had no room for."""
        extra = []
        if descriptors:
            fds = array.array("i", descriptors)
            extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
        try:
            while data:
                sent = self._line.sendmsg([data], extra)
                data, extra = data[sent:], []
        except BlockingIOError:
            return data
        except OSError:
            # The other end is gone. That is for `receive` to find out, after it has
            # read what was said last.
            return b""
        return data

    def receive(self) -> list[Message]:
        """Return all whole messages that have arrived; sets `ended` at end of file.

        On a blocking socket it waits for at least one read.
        """
        room = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
        try:
            data, extra, _, _ = self._line.recvmsg(_CHUNK, room)
        except BlockingIOError:
            return []
        except ConnectionError:
            data, extra = b"", []
        for level, kind, content in extra:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                self._descriptors.extend(fds)
        if not data:
            self.ended = True
        self._incoming += data
        return self._whole_messages()

    @property
    def has_descriptor(self) -> bool:
        """True if one has come that nobody has taken."""
        return bool(self._descriptors)

    def take_descriptor(self) -> int:
        """Return the next descriptor of the next message that has some."""
        descriptor = self._descriptors.popleft()
        os.set_inheritable(descriptor, False)
        return descriptor

    def close(self) -> None:
        """Close this end and every descriptor that nobody took."""
        while self._descriptors:
            os.close(self._descriptors.popleft())
        while self._unsent:
            _close_all(self._unsent.popleft()[1])
        self._line.close()

    def _whole_messages(self) -> list[Message]:
        messages = []
        buffer = self._incoming
        begin = 0
        while len(buffer) - begin >= 4:
            end = begin + 4 + int.from_bytes(buffer[begin : begin + 4], "little")
            if len(buffer) < end:
                break
            with memoryview(buffer) as view:
                messages.append(marshal.loads(view[begin + 4 : end]))
            begin = end
        del buffer[:begin]
        return messages


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
