"""Large bytes and texts inside of containers: they travel beside the pickle.

    pickler ──▶ bytes, bytearray ──▶ taken as they are ──┐
            ──▶ str ──▶ a number in the pickle ──────────┼──▶ buffers
            ──▶ all the rest ──▶ the rest, and where it is cut

What pickle 5 calls a buffer goes beside the pickle by itself. Bytes do not; but the C
pickler hands a long `bytes` or `bytearray` to the file it writes to, the very object,
and an unpickler lets its file fill the new one. So they are copied by whoever copies
buffers. Which of what is written is an object of the user's does not matter: the reader
sees one stream.

A `str` is encoded by the pickler, all at one go, so it must be found before: a look at
the first few hundred objects does that, and then the pickler asks about each of them.

It copies nothing, and decides nothing but what is worth a buffer of its own.
"""

from __future__ import annotations

import pickle
from itertools import islice

from offloop.wire import bulk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeAlias

    Buffer: TypeAlias = bytes | bytearray | memoryview
    Keep: TypeAlias = Callable[[pickle.PickleBuffer], object]

#: bytes or characters that are worth a buffer of their own
LONG = 256 * 1024
#: of so many buffers each; then they must be twice as long, or there would be too many
_MANY = 256
#: objects that are looked at on the way to a text
_LOOKS = 300


class Beside:
    """Takes what is long in a pickle while that is made.

    Args:
        texts: texts as well, for which the pickler asks about every object.
    """

    __slots__ = ("_cuts", "_numbers", "_parts", "_texts", "asks")

    def __init__(self, *, texts: bool = False) -> None:
        #: the pickler must be one of `pickler`
        self.asks = texts
        self._parts: list[Buffer] = []
        #: where in the rest each part belongs
        self._cuts: list[int] = []
        self._texts: list[tuple[Buffer, bool]] = []
        #: number of each text by identity; the text, so that the identity stays its own
        self._numbers: dict[int, tuple[int, str]] = {}

    def __bool__(self) -> bool:
        return bool(self._parts or self._texts)

    def take(self, data: Buffer, at: int) -> bool:
        """Take what a pickler writes, if it is long.

        Args:
            data: what it writes.
            at: bytes of the rest that came before.
        """
        if len(data) < LONG << len(self._parts) // _MANY:
            return False
        self._parts.append(data)
        self._cuts.append(at)
        return True

    def pickler(self, file: Any, buffer_callback: Keep | None) -> Any:
        """Return a pickler that leaves long texts to this object."""
        return _Asking(file, self._number, buffer_callback)

    def _number(self, text: str) -> int:
        found = self._numbers.get(id(text))
        if found is None:
            found = self._numbers[id(text)] = len(self._texts), text
            self._texts.append((bulk.text_buffer(text), text.isascii()))
        return found[0]

    def join(
        self, rest: bytes | bytearray, buffers: Sequence[Buffer], *, slowly: bool
    ) -> tuple[bytes | bytearray, list[Buffer]]:
        """Return a pickle of the whole, and all of its buffers.

        Args:
            rest: what was written and not taken.
            buffers: those of the pickle itself.
            slowly: in a thread, let other threads in again and again.
        """
        whole = _Whole(
            bytes(rest) if len(rest) < LONG else rest,
            self._cuts,
            [pickle.PickleBuffer(part) for part in self._parts],
            [(pickle.PickleBuffer(text), ascii) for text, ascii in self._texts],
            [pickle.PickleBuffer(buffer) for buffer in buffers],
        )
        held: list[pickle.PickleBuffer] = []
        dump = bulk.dump_slowly if slowly else bulk.dump
        payload = dump(whole, held.append)
        return payload, [buffer.raw() for buffer in held]


def has_long_text(obj: object) -> bool:
    """Tell whether a long `str` is among the first few hundred objects.

    It looks into lists, tuples, dicts and sets, and at the attributes of objects.
    """
    todo: list[Any] = [obj]
    left = _LOOKS
    while todo:
        value = todo.pop()
        kind = type(value)
        if kind is str:
            if len(value) >= LONG:
                return True
            continue
        inner: Any
        if kind in _ROWS:
            inner = value
        else:
            if kind is not dict:
                value = getattr(value, "__dict__", None)
                if type(value) is not dict:
                    continue
            inner = value.values()
        inner = list(islice(inner, left))
        left -= len(inner)
        todo += inner
    return False


_ROWS = frozenset({list, tuple, set, frozenset})


class _Asking(pickle.Pickler):
    """Asks about each object."""

    def __init__(
        self,
        file: Any,
        number: Callable[[str], int],
        buffer_callback: Keep | None,
    ) -> None:
        super().__init__(file, 5, buffer_callback=buffer_callback)
        self._number = number

    def persistent_id(self, obj: object) -> int | None:
        """Return the number of a long text, None for all else."""
        if type(obj) is str and len(obj) >= LONG:
            return self._number(obj)
        return None


class _Whole:
    """Stands for an object whose long parts were taken out of its pickle."""

    __slots__ = ("content",)

    def __init__(self, *content: Any) -> None:
        self.content = content

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return _join, self.content


def _join(
    rest: Buffer,
    cuts: Sequence[int],
    parts: Sequence[Buffer],
    texts: Sequence[tuple[Buffer, bool]],
    buffers: Sequence[Buffer],
) -> Any:
    view = memoryview(rest)
    pieces: list[Buffer] = []
    begin = 0
    for cut, part in zip(cuts, parts, strict=True):
        pieces += view[begin:cut], part
        begin = cut
    pieces.append(view[begin:])
    if not texts:
        return bulk.load_pieces(pieces, buffers)
    known: dict[int, str] = {}

    def text(number: int) -> str:
        if number not in known:
            known[number] = bulk.read_text(*texts[number])
        return known[number]

    return bulk.load_pieces(pieces, buffers, text)
