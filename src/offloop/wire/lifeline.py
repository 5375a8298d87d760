"""The line between a parent and its forkserver: small messages, and descriptors.

A Unix stream socket pair that no other process holds. That makes its end a certain
sign: when the parent dies, however it dies, the forkserver reads end of file. Orders
are rare and small; jobs never travel here.

A message is four bytes of length, then a pickle; at most one descriptor goes with it.
"""

from __future__ import annotations

import array
import os
import pickle
import socket
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
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
        #: messages that the kernel had no room for yet, with their descriptors
        self._unsent: deque[tuple[bytes, tuple[int, ...]]] = deque()
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
        """Send a message and copies of descriptors; the rest is for `flush`.

        The descriptors must stay open until `flush` has returned True.
        """
        body = pickle.dumps(message, 5)
        self._unsent.append((len(body).to_bytes(4, "little") + body, descriptors))
        self.flush()

    def flush(self) -> bool:
        """Send what waits; True when nothing does any more."""
        while self._unsent:
            data, descriptors = self._unsent[0]
            extra = []
            if descriptors:
                fds = array.array("i", descriptors)
                extra = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)]
            try:
                sent = self._line.sendmsg([data], extra)
            except BlockingIOError:
                return False
            except OSError:
                # The other end is gone. That is for `receive` to find out, after it has
                # read what was said last.
                self._unsent.clear()
                break
            if sent < len(data):
                self._unsent[0] = (data[sent:], ())
            else:
                self._unsent.popleft()
        return True

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

    def take_descriptor(self) -> int:
        """Return the next descriptor of the next message that has some."""
        descriptor = self._descriptors.popleft()
        os.set_inheritable(descriptor, False)
        return descriptor

    def close(self) -> None:
        """Close this end and every descriptor that nobody took."""
        while self._descriptors:
            os.close(self._descriptors.popleft())
        self._line.close()

    def _whole_messages(self) -> list[Message]:
        messages = []
        buffer = self._incoming
        while len(buffer) >= 4:
            size = int.from_bytes(buffer[:4], "little")
            if len(buffer) < 4 + size:
                break
            messages.append(pickle.loads(buffer[4 : 4 + size]))
            del buffer[: 4 + size]
        return messages
