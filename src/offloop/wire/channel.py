"""Frames between the parent and one worker: a ZeroMQ PAIR socket over `ipc://`.

One socket for each incarnation of a worker, bound before the process exists and closed
after it is gone, so nothing can be delivered to the wrong one and no identity frame is
needed. The queue is unbounded here (high-water mark 0): credit bounds it.

The file behind the address lives in a private directory until the worker has connected;
then it is removed: nobody else can connect, and nothing stays on disk. (Unbinding would
close the connection too: ZeroMQ's listener owns those that it accepted.) Abstract
socket names are not used: they have no permissions.

An envelope holds plain values only (numbers, str, bytes, None, tuples and lists of
them), so it is marshalled: half the cost of a pickle, and both ends are the same
interpreter.

This module moves messages and never looks into the calls and answers that they carry.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os

import zmq

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    Buffer = bytes | bytearray | memoryview
    Message = tuple[Any, ...]

# One for each end is enough; more of them only add wake-ups.
_IO_THREADS = 1

# Without references, which plain values do not need and which cost as much again.
_MARSHAL_VERSION = 2

# Looks at the socket, of some 2 µs each, before going to sleep.
_LOOKS = 40

# Plain numbers: pyzmq's enums cost half a microsecond each time they meet an operator.
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
_NOBLOCK = int(zmq.NOBLOCK)
_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)


def make_context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return a ZeroMQ context of one's own; the caller must `destroy` it."""
    return zmq.Context(io_threads=_IO_THREADS)


class Channel:
    """One end of the line between the parent and a worker.

    Raises:
        OSError: this process may open no more files; so does `bind`.
    """

    __slots__ = ("_path", "_socket", "fd")

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        with _as_os_error():
            socket = context.socket(zmq.PAIR)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.LINGER, 0)
        self._socket = socket
        #: the file where this end listens; None once it is removed, or on the other end
        self._path: str | None = None
        #: readable when something may have happened; edge-triggered: see
        #: `wants_reading`
        self.fd = int(socket.getsockopt(zmq.FD))

    @classmethod
    def settled(cls, context: zmq.Context[zmq.Socket[bytes]]) -> Channel:
        """Return the only channel of a new context, whose threads have settled.

        Each sets its priority first thing, and aborts the process where it may not: so
        nobody may give up that right before. The one that carries messages has begun
        when the first message has come. The one that tidies up may begin much later;
        it must have closed a socket here, since there is room for a single one.
        """
        context.set(zmq.MAX_SOCKETS, 1)
        cls(context).close()
        while True:
            try:
                return cls(context)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                os.sched_yield()

    def bind(self, path: str) -> None:
        """Listen at `path`, which must not exist yet."""
        with _as_os_error():
            self._socket.bind(f"ipc://{path}")
        self._path = path

    def connect(self, path: str) -> None:
        """Join the end that listens at `path`."""
        self._socket.connect(f"ipc://{path}")

    def seal(self) -> None:
        """Remove the address: the other end has come, or never will."""
        if self._path is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path)
            self._path = None

    def send(self, message: Message, buffers: Sequence[Buffer] = ()) -> None:
        """Hand a message over; never blocks, because the queue has no limit.

        Buffers are not copied: they must not change any more. What is sent to an end
        that has gone is lost (whoever watches its process soon knows), as is what the
        bound end sends before the other has come.
        """
        envelope = marshal.dumps(message, _MARSHAL_VERSION)
        try:
            if not buffers:
                self._socket.send(envelope, _NOBLOCK)
                return
            self._socket.send(envelope, _MORE)
            self._socket.send_multipart(buffers, _NOBLOCK, copy=False)
        except zmq.Again:  # the queue goes with the connection
            return

    def receive_nowait(self) -> Message | None:
        """Return the next message, or None when there is none.

        Its buffers must be taken with `receive_buffers` before anything else is
        received.
        """
        try:
            return marshal.loads(self._socket.recv(_NOBLOCK))  # type: ignore[no-any-return]
        except zmq.Again:
            return None

    def receive_soon(self) -> Message | None:
        """Return the next message if it comes within some 80 µs, without sleeping.

        Falling asleep and being woken takes 20 to 30 µs of a round trip of 95. Others
        that want the core get it between two looks.
        """
        for _ in range(_LOOKS):
            try:
                return marshal.loads(self._socket.recv(_NOBLOCK))  # type: ignore[no-any-return]
            except zmq.Again:
                os.sched_yield()
        return None

    def receive(self) -> Message | None:
        """Wait for a message; None when `set_timeout`'s time passes without one."""
        try:
            return marshal.loads(self._socket.recv())  # type: ignore[no-any-return]
        except zmq.Again:
            return None

    def set_timeout(self, seconds: float | None) -> None:
        """Bound the wait of `receive`; None: wait for ever."""
        milliseconds = -1 if seconds is None else round(seconds * 1000)
        self._socket.setsockopt(zmq.RCVTIMEO, milliseconds)

    def receive_buffers(self, count: int) -> list[memoryview]:
        """Take the `count` frames that follow the envelope just received."""
        receive = self._socket.recv
        return [receive(copy=False).buffer for _ in range(count)]

    def wants_reading(self) -> bool:
        """Tell whether a message waits: to be asked after each send.

        ZeroMQ's descriptor is edge-triggered, and sending may swallow the edge.
        """
        events: Any = self._socket.getsockopt(_EVENTS)
        return bool(events & _POLLIN)

    def close(self, linger: float = 0.0) -> None:
        """Close this end; unsent messages get `linger` seconds more."""
        self.seal()
        self._socket.close(round(linger * 1000))


@contextlib.contextmanager
def _as_os_error() -> Iterator[None]:
    """Let what the system refuses be the error that it is everywhere else."""
    try:
        yield
    except zmq.ZMQError as error:
        raise OSError(error.errno, str(error)) from None
