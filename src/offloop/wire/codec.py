"""Objects to bytes and back: calls, results and exceptions.

    (args, kwargs) ─┬─▶ C pickler ──▶ payload + buffers of 16 KiB and more, uncopied
              plain │      │ refused, or it names __main__
                    ▼      ▼
              as it is   cloudpickle, by value

Plain values (numbers, None, short str and bytes) need no pickle: the envelope takes
them as they are, in a tuple, which is how `decode` and `decode_call` know them.

It moves nothing itself and knows no socket, no shared memory and no job: it makes bytes
and buffers, and reads them. It runs no user code, but for what pickling runs. Pickles
are only ever read from peers that the channel trusts.

This is the face of three modules: `by_value` knows how to pickle what only one process
knows, `failures` how exceptions travel.
"""

from __future__ import annotations

import pickle
from functools import partial
from itertools import chain

from offloop.errors import NotOffloadable, ResultNotEncodable
from offloop.wire import bulk, pointers
from offloop.wire.beside import Beside, has_long_text
from offloop.wire.by_value import MAIN
from offloop.wire.by_value import in_band as dumps_in_band
from offloop.wire.by_value import pickler as by_value_pickler
from offloop.wire.failures import decode_error, encode_error

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs a worker milliseconds at start
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeAlias

    Buffer: TypeAlias = bytes | bytearray | memoryview
    #: what the envelope carries: a pickle, or plain values as they are
    Payload: TypeAlias = bytes | bytearray | tuple[Any, ...]
    Keep: TypeAlias = Callable[[pickle.PickleBuffer], bool]

__all__ = [
    "Bulky",
    "LONG_PLAIN",
    "OUT_OF_BAND",
    "are_plain",
    "encode",
    "decode",
    "encode_call",
    "decode_call",
    "encode_result",
    "encode_error",
    "decode_error",
]

#: bytes from which a buffer travels beside the payload instead of inside it
OUT_OF_BAND = 16 * 1024
#: bytes or characters from which `bytes` and `str` do so. They need no pickle where
#: they are arguments or results themselves, so shared memory pays later: at 16 KiB a
#: round trip through it takes 50 µs more, at 64 KiB it doubles the calls per second.
LONG_PLAIN = 32 * 1024

#: bytes that a pickle may have which is made on the event loop
_AT_ONCE = 64 * 1024
#: bytes from which a copy is made with the GIL released
_LONG_COPY = 1024 * 1024
#: containers of so many plain values are pickled without a second thought
_FEW = 16

_HINT = (
    "Locks, sockets, open files, generators and database sessions belong to one "
    "process: make them inside the job, or once per worker in `initializer`."
)

_LIFTED = frozenset({bytes, bytearray, memoryview, str})
#: types whose values may be plain; str and bytes only when they are short
_PLAIN = frozenset({int, float, bool, type(None), str, bytes})
_SIZED = frozenset({str, bytes})
_NUMBERS = frozenset({int, float, bool, type(None)})
#: numpy's arrays that numpy itself would copy into the pickle
_SUBCLASSES = frozenset({"memmap", "matrix"})
_dumps = pickle.dumps
_loads = pickle.loads


class Bulky(Exception):
    """It takes too long to be pickled on an event loop: use a thread, and `slowly`."""


# ---- calls and results ---------------------------------------------------------------


def encode(
    obj: object, *, describe: str, in_band: bool = False, slowly: bool = False
) -> tuple[bytes | bytearray, list[Buffer]]:
    """Turn one object into a payload and its large buffers.

    Args:
        obj: anything that pickle or cloudpickle takes.
        describe: what it belongs to, for the message of an error.
        in_band: put everything into the payload, however large.
        slowly: let other threads in again and again.

    Returns:
        The payload, and the buffers that `decode` must be given in the same order.
        The buffers are views on `obj`: send or copy them before it changes.

    Raises:
        NotOffloadable: it cannot travel; the reason is the ``__cause__``.
        Bulky: it must be encoded `slowly`.
    """
    try:
        if in_band:
            return dumps_in_band(obj, shared=True), []
        lifted = _lift(obj, slowly)
        quick = not slowly and _is_quick(lifted)
        return _dump(lifted, slowly=slowly, at_once=quick)
    except Bulky:
        raise
    except Exception as error:
        raise NotOffloadable(_refusal(describe, "it", obj, error)) from error


def decode(payload: Payload | Buffer, buffers: Sequence[Buffer] = ()) -> Any:
    """Read what `encode` or `encode_result` wrote; errors pass through unchanged.

    Arrays are views on the given buffers, and writable where those are.
    """
    if isinstance(payload, tuple):
        return payload[0]
    if not buffers:
        return _loads(payload)
    return _loads(payload, buffers=buffers)


def encode_call(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    describe: str,
    *,
    applied: bool = False,
    many: bool = False,
    slowly: bool = False,
) -> tuple[Payload, list[Buffer]]:
    """Turn the arguments of a call into a payload and its large buffers.

    Args:
        args: positional arguments.
        kwargs: keyword arguments.
        describe: the call, for the message of an error ("app.thumbnail(...)").
        applied: `args[0]` is the callable itself, not an argument of the user.
        many: the last arguments are a chunk, as `chunks.run` takes it.
        slowly: in a thread, let other threads in again and again.

    Returns:
        What `decode_call` must be given.

    Raises:
        NotOffloadable: names the argument that cannot travel, and why.
        Bulky: it must be encoded `slowly`.
    """
    if not kwargs and are_plain(args):
        return args, []
    carried, named = args, kwargs
    known: dict[int, Any] = {}
    for value in args:
        if type(value) in _LIFTED:
            carried = tuple(_lift_once(each, slowly, known) for each in args)
            break
    plain_rows = False
    if many:
        carried, plain_rows = _lift_rows(args, slowly)
    if kwargs:
        named = {
            name: _lift_once(value, slowly, known) for name, value in kwargs.items()
        }
    quick = plain_rows or (
        not slowly and all(map(_is_quick, (*carried, *named.values())))
    )
    try:
        return _dump((carried, named), slowly=slowly, at_once=quick)
    except Bulky:
        raise
    except Exception as error:
        message, cause = _blame_argument(args, kwargs, describe, error, applied)
        raise NotOffloadable(message) from cause


def decode_call(
    payload: Payload | Buffer, buffers: Sequence[Buffer] = ()
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Read what `encode_call` wrote; errors pass through unchanged."""
    if isinstance(payload, tuple):
        return payload, {}
    call: tuple[tuple[Any, ...], dict[str, Any]] = _loads(payload, buffers=buffers)
    return call


def encode_result(value: object, describe: str) -> tuple[Payload, list[Buffer]]:
    """Turn what a function returned into a payload and its large buffers.

    Raises:
        ResultNotEncodable: it cannot travel; the reason is the ``__cause__``.
    """
    plain = (value,)
    if are_plain(plain):
        return plain, []
    try:
        return _dump(_lift(value, slowly=True), shared=False)
    except Exception as error:
        message = _refusal(describe, "its result", value, error)
        raise ResultNotEncodable(message, function=describe) from error


def are_plain(values: Sequence[Any]) -> bool:
    """Tell whether values need no pickle; see above."""
    for value in values:
        kind = type(value)
        if kind not in _PLAIN or (kind in _SIZED and len(value) >= LONG_PLAIN):
            return False
    return True


def _lift_rows(args: tuple[Any, ...], slowly: bool) -> tuple[tuple[Any, ...], bool]:
    """Lift the items of a chunk; True if there was nothing to lift: they are numbers.

    Whoever makes a chunk of numbers sees to it that it is not too long.
    """
    *front, rows, spread, go_on = args
    items = chain.from_iterable(rows) if spread else rows
    if _NUMBERS.issuperset(map(type, items)):
        return args, not front
    if spread:
        lifted = [tuple(_lift(each, slowly) for each in row) for row in rows]
    else:
        lifted = [_lift(each, slowly) for each in rows]
    return (*front, lifted, spread, go_on), False


def _is_quick(value: Any) -> bool:
    """Tell whether pickling takes a moment only, as far as a look can tell.

    What carries its bytes in a buffer is quick at any size.
    """
    kind = type(value)
    if kind in _PLAIN or kind in _STANDINS:
        return True
    if kind.__module__ == "numpy" and kind.__name__ not in _SUBCLASSES:
        flags = getattr(value, "flags", None)
        if flags is None:
            return True
        return flags.forc and (value.nbytes < OUT_OF_BAND or not value.dtype.hasobject)
    return kind in (list, tuple) and len(value) <= _FEW and are_plain(value)


def _dump(
    obj: object, *, shared: bool = True, slowly: bool = False, at_once: bool = True
) -> tuple[bytes | bytearray, list[Buffer]]:
    """Pickle with the C pickler if that is enough, by value if not."""
    held: list[Any] = []
    payload: bytes | bytearray
    beside: Beside | None = None
    try:
        if shared and at_once:
            payload = _dumps(obj, 5, buffer_callback=held.append)
        else:
            beside = Beside(texts=has_long_text(obj))
            payload = _dump_parts(obj, held.append, beside, slowly, at_once)
        by_value = bulk.contains(payload, MAIN) if slowly else MAIN in payload
        if not by_value:
            raws = [buffer.raw() for buffer in held]
            if any(len(raw) < OUT_OF_BAND for raw in raws):
                # Once more, with the small buffers in band. A callback in Python at the
                # first try would cost every call a tenth of a microsecond, for the sake
                # of the few that carry small arrays.
                raws = []
                beside = Beside(texts=beside is not None and beside.asks)
                payload = _dump_parts(obj, _keeper(raws), beside, slowly, at_once)
            if beside:
                return beside.join(payload, raws, slowly=slowly)
            return payload, raws
    except Bulky:
        raise
    except Exception:
        held.clear()
    buffers: list[Buffer] = []
    beside = Beside()
    pickler = partial(by_value_pickler, shared=shared)
    payload = bulk.dump(obj, _keeper(buffers), beside, pickler=pickler)
    if beside:
        return beside.join(payload, buffers, slowly=slowly)
    return payload, buffers


def _dump_parts(
    obj: object, keep: Callable[[Any], Any], beside: Beside, slowly: bool, at_once: bool
) -> bytes | bytearray:
    """Pickle with the C pickler, what is long beside."""
    if slowly:
        return bulk.dump_slowly(obj, keep, beside=beside)
    if at_once:
        return bulk.dump(obj, keep, beside)
    payload = None if beside.asks else bulk.probe(obj, _AT_ONCE, keep, beside)
    if payload is None:
        raise Bulky
    return payload


def _keeper(buffers: list[Buffer]) -> Keep:
    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < OUT_OF_BAND:
            return True
        buffers.append(raw)
        return False

    return keep_in_band


# ---- bytes-like arguments, which pickle would copy or refuse -------------------------


class _Block:
    """Stands for large bytes or a bytearray, so that pickle does not copy them."""

    __slots__ = ("value",)

    def __init__(self, value: bytes | bytearray) -> None:
        self.value = value

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        mutable = type(self.value) is bytearray
        return _make_block, (pickle.PickleBuffer(self.value), mutable)


def _make_block(buffer: Buffer, mutable: bool) -> bytes | bytearray:
    kind = bytearray if mutable else bytes
    if memoryview(buffer).nbytes < _LONG_COPY:
        return kind(buffer)
    return pointers.copied(buffer, kind)


class _Text:
    """Stands for a large str, whose characters go as a buffer."""

    __slots__ = ("value",)

    def __init__(self, value: str) -> None:
        self.value = value

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        text = self.value
        buffer = pickle.PickleBuffer(bulk.text_buffer(text))
        return bulk.read_text, (buffer, text.isascii())


class _View:
    """Stands for a memoryview, which pickle refuses."""

    __slots__ = ("value",)

    def __init__(self, value: memoryview) -> None:
        self.value = value

    def __reduce_ex__(self, protocol: object) -> tuple[Any, ...]:
        return _reduce_view(self.value)


def _reduce_view(view: memoryview) -> tuple[Any, ...]:
    format: Any = view.format
    # Only native single-character formats can be cast back: refuse others here.
    memoryview(bytes(view.itemsize)).cast(format)
    if view.ndim > 1 and not view.nbytes:
        raise TypeError("a memoryview without items can have one dimension only")
    flat: Buffer = view
    if not view.c_contiguous:
        flat = view.tobytes() if view.readonly else bytearray(view.tobytes())
    rest = (format, view.shape, view.readonly)
    return _make_view, (pickle.PickleBuffer(flat), *rest)


# At depth too: cloudpickle would send bytes.
bulk.REDUCERS[memoryview] = _reduce_view


def _make_view(
    buffer: Buffer, format: Any, shape: tuple[int, ...], readonly: bool
) -> memoryview:
    view = memoryview(buffer)
    if view.readonly and not readonly:
        view = memoryview(bytearray(buffer))
    if format != "B" or len(shape) != 1:
        view = view.cast("B").cast(format, shape)
    return view.toreadonly() if readonly else view


def _lift(value: Any, slowly: bool) -> Any:
    """Return what stands for a value.

    Raises:
        Bulky: all of it must be copied first.
    """
    kind = type(value)
    if kind is memoryview:
        if not slowly and value.nbytes > _AT_ONCE and not value.c_contiguous:
            raise Bulky
        return _View(value)
    large = LONG_PLAIN if kind in _SIZED else OUT_OF_BAND
    if kind in _LIFTED and len(value) >= large:
        if kind is not str:
            return _Block(value)
        if not slowly and len(value) > _AT_ONCE and not value.isascii():
            raise Bulky
        return _Text(value)
    return value


def _lift_once(value: Any, slowly: bool, known: dict[int, Any]) -> Any:
    """Lift an argument; named twice, it is sent once, and is one object there.

    Args:
        value: the argument.
        slowly: as of `_lift`.
        known: what stands for the arguments so far, by their identity.
    """
    lifted = known.get(id(value))
    if lifted is None:
        lifted = _lift(value, slowly)
        if lifted is not value:
            known[id(value)] = lifted
    return lifted


_STANDINS = frozenset({_Block, _Text, _View})


# ---- why something cannot travel -----------------------------------------------------


def _refusal(describe: str, what: str, value: object, error: Exception) -> str:
    return (
        f"{describe}: {what} (of type {_type_name(value)}) cannot be sent to another "
        f"process: {type(error).__name__}: {error}. {_HINT}"
    )


def _blame_argument(
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    describe: str,
    error: Exception,
    applied: bool,
) -> tuple[str, Exception]:
    """Find the first argument that cannot travel by itself."""
    for label, value in _labelled(args, kwargs, applied):
        cause = _trouble(value)
        if cause is not None:
            return _refusal(describe, label, value, cause), cause
    return _refusal(describe, "the arguments together", args, error), error


def _labelled(
    args: tuple[Any, ...], kwargs: dict[str, Any], applied: bool
) -> Iterator[tuple[str, Any]]:
    for index, value in enumerate(args, 0 if applied else 1):
        yield f"argument {index}" if index else "the callable", value
    for name, value in kwargs.items():
        yield f"argument {name!r}", value


def _trouble(value: object) -> Exception | None:
    try:
        _dump(_lift(value, slowly=True))
    except Exception as error:
        return error
    return None


def _type_name(value: object) -> str:
    kind = type(value)
    if kind.__module__ == "builtins":
        return kind.__qualname__
    return f"{kind.__module__}.{kind.__qualname__}"
