"""Pickling that lets others in: for objects too large to be pickled at one go.

The C pickler runs no bytecode, so it does not release the GIL, not even in a thread of
its own: a list of a million tuples stops every other thread for 150 ms. But it writes
to a file, 64 KiB at a time, and reads from one; a file whose methods pause there gives
the event loop a turn every half millisecond.

    obj ──▶ probe ──▶ payload                       small: at once, on the loop
              │
              ▼ None
            dump_slowly ──▶ payload ──▶ load_slowly     in threads
            text_buffer ──▶ buffer  ──▶ read_text

What cannot be helped, because it is one step that nobody can interrupt:

- The pickler's table of what it has seen grows by doubling: 3 ms at 100,000 objects,
  30 ms at a million, and half of that when it is dropped. Numbers are not in it, so a
  list of floats never stops anybody for more than half a millisecond.
- A dict grows by copying itself when it is loaded: 16 ms at a million items.
- One object that is large in itself and no buffer: an int of millions of digits; a
  `str` of megabytes that nobody found in time (see `beside`).
- What a ``__reduce__`` or ``__setstate__`` of the user computes, and a garbage
  collection while objects are made.
"""

from __future__ import annotations

import copyreg
import math
import pickle
import time

from offloop.wire import ndarrays
from offloop.wire.pointers import copy, new_ascii, text_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, Protocol, TypeAlias

    Buffer: TypeAlias = bytes | bytearray | memoryview
    Keep: TypeAlias = Callable[[pickle.PickleBuffer], object]

    class Beside(Protocol):
        """What takes long parts out of a pickle: see the module of this name."""

        asks: bool

        def take(self, data: Buffer, at: int) -> bool: ...

        def pickler(self, file: Any, buffer_callback: Keep | None) -> Any: ...


#: how to reduce what pickle does not know, by type; for whoever stands on this module
REDUCERS: dict[type, Callable[[Any], Any]] = {}
#: bytes that are copied, searched or translated between two pauses
SLICE = 512 * 1024
#: seconds; not 0, because whoever waits for the GIL must have the time to wake up
_PAUSE = 1e-6
#: shorter reads are headers
_SHORT = 1024


def probe(
    obj: object,
    limit: int,
    buffer_callback: Keep | None = None,
    beside: Beside | None = None,
) -> bytes | None:
    """Pickle an object at once, unless it turns out to be large.

    Args:
        obj: anything that the C pickler takes. What it raises passes through.
        limit: bytes that the payload may have. What takes more than 64 KiB is found out
            when those are full, which takes half a millisecond.
        buffer_callback: as in `pickle.dumps`; if the answer is None, it has been called
            for some buffers in vain. Without it, a buffer above `limit` is not looked
            into: pickle would copy it first.
        beside: takes what is long; that does not count.

    Returns:
        The payload, or None: then `dump_slowly` is for it, in a thread.
    """
    file = _Beginning(limit, beside)

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        if memoryview(buffer).nbytes > limit:
            raise _Enough
        return True

    keep = buffer_callback or keep_in_band
    try:
        _dump_to(file, obj, keep, hasty=True, beside=beside)
    except (_Enough, ndarrays.TooLong):
        return None
    return file.content()


def dump_slowly(
    obj: object,
    buffer_callback: Keep | None = None,
    *,
    pickler: Callable[..., Any] | None = None,
    beside: Beside | None = None,
) -> bytearray:
    """Pickle an object with pauses, in a thread.

    Args:
        obj: anything that the pickler takes. It must not be changed meanwhile.
        buffer_callback: as in `pickle.dumps`.
        pickler: called with a file, a protocol and `buffer_callback`; None: the C
            pickler, which gets along with all of numpy's arrays.
        beside: takes what is long.

    Returns:
        What `pickle.loads` and `load_slowly` read.
    """
    file = _Sink(beside)
    if pickler is not None:
        pickler(file, 5, buffer_callback=buffer_callback).dump(obj)
    else:
        _dump_to(file, obj, buffer_callback, beside=beside)
    return file.content


def dump(
    obj: object,
    buffer_callback: Keep | None = None,
    beside: Beside | None = None,
    *,
    pickler: Callable[..., Any] | None = None,
) -> bytes:
    """Pickle an object at one go, where no event loop waits, numpy's arrays as well.

    Arguments as of `dump_slowly`.
    """
    file = _Beginning(math.inf, beside)
    if pickler is not None:
        pickler(file, 5, buffer_callback=buffer_callback).dump(obj)
    else:
        _dump_to(file, obj, buffer_callback, beside=beside)
    return file.content()


def _dump_to(
    file: Any,
    obj: object,
    buffer_callback: Keep | None,
    *,
    hasty: bool = False,
    beside: Beside | None = None,
) -> None:
    if beside is not None and beside.asks:
        pickler = beside.pickler(file, buffer_callback)
    else:
        pickler = pickle.Pickler(file, 5, buffer_callback=buffer_callback)
    arrays = ndarrays.reducers(hasty=hasty)
    pickler.dispatch_table = {**arrays, **REDUCERS, **copyreg.dispatch_table}
    pickler.dump(obj)


def load_slowly(payload: Buffer, buffers: Iterable[Buffer] = ()) -> Any:
    """Read a pickle with pauses, in a thread.

    Args:
        payload: of any pickler; it comes from a peer that is trusted.
        buffers: those that its buffer_callback was given, in order.
    """
    return load_pieces((payload,), buffers)


def load_pieces(
    pieces: Iterable[Buffer],
    buffers: Iterable[Buffer],
    named: Callable[[int], object] | None = None,
) -> Any:
    """Read a pickle that lies in several pieces, with pauses.

    Args:
        pieces: of the pickle, in order.
        buffers: as of `load_slowly`.
        named: returns what the pickle only names by a number.
    """
    source: Any = _Source(pieces)
    if named is None:
        return pickle.Unpickler(source, buffers=buffers).load()
    reader = _Naming(source, buffers=buffers)
    reader.named = named
    return reader.load()


class _Naming(pickle.Unpickler):
    """Asks for what a pickle only names; Python 3.13 wants a method for that."""

    #: of `load_pieces`
    named: Callable[[int], object]

    def persistent_load(self, number: int) -> object:
        return self.named(number)


def contains(payload: bytes | bytearray, marker: bytes) -> bool:
    """Tell whether a marker is in a payload, with pauses."""
    for begin in range(0, len(payload), SLICE):
        if payload.find(marker, begin, begin + SLICE + len(marker) - 1) >= 0:
            return True
        _pause()
    return False


def text_buffer(text: str) -> memoryview:
    """Return the bytes of a text, which `read_text` turns into a text again.

    ASCII is not copied: the view is on the text itself. Other texts become UTF-8, with
    pauses; lone surrogates are kept.
    """
    if text.isascii():
        return text_bytes(text)
    encoded = bytearray()
    for begin in range(0, len(text), SLICE):
        encoded += text[begin : begin + SLICE].encode("utf-8", "surrogatepass")
        _pause()
    return memoryview(encoded).toreadonly()


def read_text(buffer: Buffer, ascii: bool) -> str:
    """Make a text of the bytes of one, with pauses.

    Args:
        buffer: what `text_buffer` returned, or a copy of it.
        ascii: what ``isascii()`` of the text was. Only then no step holds the GIL for
            long; the parts of other texts are joined at the end.
    """
    view = memoryview(buffer)
    size = len(view)
    if ascii and size > SLICE:
        text, target = new_ascii(size)
        _copy(target, view)
        return text
    parts = []
    begin = 0
    while begin < size:
        end = min(begin + SLICE, size)
        while end < size and view[end] & 0xC0 == 0x80:  # within a character
            end -= 1
        parts.append(str(view[begin:end], "utf-8", "surrogatepass"))
        begin = end
        _pause()
    return "".join(parts)


class _Enough(Exception):
    """The limit of a probe is reached."""


class _Beginning:
    """Takes what a pickler writes, up to a limit."""

    __slots__ = ("_beside", "_limit", "_parts", "_size")

    def __init__(self, limit: float, beside: Beside | None) -> None:
        self._limit = limit
        self._beside = beside
        self._parts: list[bytes | memoryview] = []
        #: bytes of the parts
        self._size = 0

    def write(self, written: bytes | pickle.PickleBuffer) -> None:
        data = _content(written)
        beside = self._beside
        if beside is not None and beside.take(data, self._size):
            return
        self._size += len(data)
        if self._size > self._limit:
            raise _Enough
        self._parts.append(data)

    def content(self) -> bytes:
        return b"".join(self._parts)  # not a copy if there is one only


def _content(data: bytes | pickle.PickleBuffer) -> bytes | memoryview:
    """Return what a pickler writes, also if that is a long buffer as it is."""
    return data.raw() if type(data) is pickle.PickleBuffer else data


class _Sink:
    """Takes what a pickler writes, with a pause for each piece."""

    __slots__ = ("_beside", "content")

    def __init__(self, beside: Beside | None) -> None:
        self._beside = beside
        self.content = bytearray()

    def write(self, written: bytes | pickle.PickleBuffer) -> None:
        data = _content(written)
        if self._beside is not None and self._beside.take(data, len(self.content)):
            return
        # A long one is an object of the user's: it is not copied at one go.
        view = memoryview(data)
        for begin in range(0, len(view), SLICE):
            self.content += view[begin : begin + SLICE]
            _pause()


class _Source:
    """Gives an unpickler what it reads, with a pause for each piece."""

    __slots__ = ("_at", "_later", "_view")

    def __init__(self, pieces: Iterable[Buffer]) -> None:
        self._later = iter(pieces)
        #: the piece that is being read, and where
        self._view = memoryview(next(self._later))
        self._at = 0

    def _next(self, most: int) -> memoryview:
        """Return what comes next, as far as it lies in a row; nothing at the end."""
        while self._at == len(self._view):
            later = next(self._later, None)
            if later is None:
                break
            self._view, self._at = memoryview(later), 0
        part = self._view[self._at : self._at + most]
        self._at += len(part)
        return part

    def read(self, size: int) -> Buffer:
        if size > _SHORT:
            _pause()
        part = self._next(size)
        if len(part) == size:
            return part
        joined = bytearray(part)
        while len(joined) < size and (part := self._next(size - len(joined))):
            joined += part
        return joined

    def readinto(self, target: memoryview) -> int:
        done = 0
        while done < len(target) and (part := self._next(len(target) - done)):
            _copy(target[done : done + len(part)], part)
            done += len(part)
        return done

    def readline(self) -> bytes:
        raise pickle.UnpicklingError("this pickle is of a protocol with lines, below 2")


def _copy(target: memoryview, source: memoryview) -> None:
    if len(source) > SLICE:
        copy(target, source)
    else:
        target[:] = source


def _pause() -> None:
    time.sleep(_PAUSE)
