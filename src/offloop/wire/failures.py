"""Exceptions to bytes and back, whatever the exception.

    E ── __cause__ ──▶ C ── __cause__ ──▶ RemoteTraceback(the worker's text)

An exception arrives as itself, with its notes, causes, contexts and, in a group, its
members; the last cause is the traceback as the worker saw it. Each exception of a chain
or a group is made safe by itself, and proven by loading it in the worker already: a
class with an odd constructor pickles well and fails to load.

It never raises, neither here nor there: what cannot travel is replaced by the next best
thing, and a job always has an ending. Its functions are offered by `codec`.
"""

from __future__ import annotations

import os
import pickle
import types

from offloop.errors import ControlFlowError, RemoteError, RemoteTraceback
from offloop.wire import by_value

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs a worker milliseconds at start
    from collections.abc import Callable
    from typing import Any

__all__ = ["decode_error", "deliverable", "encode_error"]

#: characters of a worker's traceback that travel, of its beginning and of its end
TEXT_HEAD, TEXT_TAIL = 16 * 1024, 48 * 1024
#: exceptions that travel in one chain of causes
CHAIN = 50

#: `AttributeError.obj` can be any object of the program, however large
_NOT_FIELDS = frozenset({"obj", "exceptions", "message", "__dict__", "__weakref__"})
#: sets an attribute, even if the class has a __setattr__ that refuses
_set = BaseException.__setattr__
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LEADING = ("worker", "running", "outflow", "wire", "engines")
#: files whose frames lead from a worker to the user's function
_OURS = (
    *(os.path.join(_PACKAGE, name) for name in _LEADING),
    os.path.join(os.path.dirname(os.__file__), "asyncio"),
)


def encode_error(error: BaseException, *, job_id: int | None, function: str) -> bytes:
    """Turn an exception and its traceback into bytes; never fails.

    What cannot travel is replaced, the least that will do: an attribute by its repr, or
    the whole exception by a `RemoteError`.

    Args:
        error: what the function raised.
        job_id: number of the job in its pool.
        function: name of the function, for messages.
    """
    try:
        node = _node(error, set())
        text = _traceback_text(error)
    except BaseException as trouble:
        # The job is over, and this is its ending: whatever interrupts us here, be it a
        # __reduce__ that exits or a late cancellation, must not leave it without one.
        node = (None, _type_name(error), _text(str, error), None, None, False, ())
        text = f"(no traceback: {_text(repr, trouble)})"
    return pickle.dumps((node, text, job_id, function), 5)


def decode_error(data: bytes | bytearray | memoryview) -> Exception:
    """Read what `encode_error` wrote; never raises.

    Returns:
        The exception. A `RemoteTraceback` is its ``__cause__`` or, if it has causes of
        its own, the cause of the last of them. What would end or confuse an event loop
        (SystemExit, StopIteration) is the cause of a `ControlFlowError` instead.
    """
    try:
        node, *story = pickle.loads(data)
        error = _revive(node, story)
    except Exception as trouble:
        unread = RemoteError(f"a job failed, but its error cannot be read: {trouble!r}")
        unread.__cause__ = trouble
        return unread
    _append_cause(error, RemoteTraceback(story[0]))
    steers = isinstance(error, (StopIteration, StopAsyncIteration))
    if steers or not isinstance(error, Exception):
        return _stand_in(node, story, ControlFlowError, error)
    return error


def deliverable(error: BaseException, *, job_id: int, function: str) -> Exception:
    """Return what stands for an exception that stays in its process: itself.

    Its traceback loses the frames of ours that lead to the user's. What would end or
    confuse an event loop becomes what it is when it has travelled.
    """
    steers = isinstance(error, (StopIteration, StopAsyncIteration))
    if steers or not isinstance(error, Exception):
        return decode_error(encode_error(error, job_id=job_id, function=function))
    return error.with_traceback(_users(error))


# ---- in the worker -------------------------------------------------------------------


def _node(error: BaseException | None, seen: set[int], depth: int = 0) -> Any:
    """Return an exception and what hangs on it, in plain types and pickles."""
    if error is None or id(error) in seen or depth > CHAIN:
        return None
    seen.add(id(error))
    members: tuple[Any, ...] = ()
    portable: Callable[[Any], bytes | None] = _portable
    if isinstance(error, BaseExceptionGroup):
        nodes = (_node(member, seen, depth + 1) for member in error.exceptions)
        members = tuple(node for node in nodes if node is not None)
        portable = _portable_group
    return (
        portable(error),
        _type_name(error),
        _text(str, error)[:TEXT_HEAD],
        _node(error.__cause__, seen, depth + 1),
        _node(error.__context__, seen, depth + 1),
        error.__suppress_context__,
        members,
    )


def _portable(error: BaseException) -> bytes | None:
    """Return the most faithful pickle that loads again; None if there is none."""
    best = None
    likeness = _likeness(error)
    for attempt in (lambda: error, lambda: _Parts(error), lambda: _Reprs(error)):
        payload, copy = by_value.trial(attempt()) or (None, None)
        if type(copy) is type(error):
            if _likeness(copy) == likeness:
                return payload
            best = best or payload
    return best


def _portable_group(group: BaseExceptionGroup[Any]) -> bytes | None:
    """Return a pickle of all but the members, which travel as nodes."""
    state = {name: _or_repr(value) for name, value in vars(group).items()}
    payload, _ = by_value.trial((type(group), group.message, state)) or (None, None)
    return payload


def _likeness(error: BaseException) -> tuple[str, str, set[str]]:
    return _text(str, error), _text(repr, error.args), set(_fields(error))


def _fields(error: BaseException) -> dict[str, Any]:
    """Collect what slots and C structures hold beside ``args`` and ``__dict__``."""
    kinds = (types.MemberDescriptorType, types.GetSetDescriptorType)
    mro = type(error).__mro__
    names = {
        name
        for base in mro[: mro.index(BaseException)]
        for name, descriptor in vars(base).items()
        if isinstance(descriptor, kinds) and name not in _NOT_FIELDS
    }
    found = {name: getattr(error, name, None) for name in names}
    return {name: value for name, value in found.items() if value is not None}


class _Parts:
    """Stands for an exception that is rebuilt without its constructor."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        error = self.error
        return _rebuild, (type(error), error.args, _fields(error), vars(error))


class _Reprs(_Parts):
    """The same, with a repr in the place of each value that cannot travel."""

    def __reduce__(self) -> tuple[Any, ...]:
        make, (cls, args, fields, state) = super().__reduce__()
        named = (
            {name: _or_repr(value) for name, value in values.items()}
            for values in (fields, state)
        )
        return make, (cls, tuple(map(_or_repr, args)), *named)


def _or_repr(value: object) -> object:
    return _text(repr, value) if by_value.trial(value) is None else value


def _rebuild(
    cls: type[BaseException],
    args: tuple[Any, ...],
    fields: dict[str, Any],
    state: dict[str, Any],
) -> BaseException:
    builtin = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    error: BaseException = builtin.__new__(cls, *args)
    for name, value in (("args", args), *fields.items()):
        _set(error, name, value)
    error.__dict__.update(state)
    return error


def _type_name(error: BaseException) -> str:
    cls = type(error)
    plain = cls.__module__ in ("builtins", "__main__")
    return cls.__qualname__ if plain else f"{cls.__module__}.{cls.__qualname__}"


def _text(render: Callable[[Any], str], value: object) -> str:
    try:
        return render(value)
    except BaseException as trouble:  # as `traceback` does: any __str__ may be broken
        return (
            f"<{type(value).__name__} whose text fails with {type(trouble).__name__}>"
        )


def _traceback_text(error: BaseException) -> str:
    """Format the traceback, without the frames of ours that lead to the user's."""
    import traceback

    shown = traceback.TracebackException(type(error), error, _users(error))
    text = "".join(shown.format())
    if len(text) <= TEXT_HEAD + TEXT_TAIL:
        return text
    return f"{text[:TEXT_HEAD]}\n  [... cut here ...]\n{text[-TEXT_TAIL:]}"


def _users(error: BaseException) -> types.TracebackType | None:
    """Return the traceback from the first frame on that is not ours."""
    trace = error.__traceback__
    while trace and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    return trace


# ---- in the caller's process ---------------------------------------------------------


def _revive(node: Any, story: Any) -> BaseException:
    """Build the exception of a node, its members, its causes and its contexts."""
    _, _, _, cause, context, suppress, members = node
    error = _revive_one(node, story, [_revive(member, story) for member in members])
    if cause is not None:
        _set(error, "__cause__", _revive(cause, story))
    if context is not None:
        _set(error, "__context__", _revive(context, story))
    _set(error, "__suppress_context__", suppress)
    return error


def _revive_one(node: Any, story: Any, members: list[BaseException]) -> BaseException:
    payload, type_name, message, *_ = node
    try:
        if not members:
            error: BaseException = pickle.loads(payload)
            return error
        cls, text, state = pickle.loads(payload)
        group: BaseException = BaseExceptionGroup.__new__(cls, text, members)
        group.__dict__.update(state)
        return group
    except Exception as trouble:
        if members:
            return BaseExceptionGroup(f"{type_name}: {message}", members)
        stand_in = _stand_in(node, story)
        if payload is not None:
            stand_in.add_note(f"it cannot be loaded here: {trouble!r}")
        return stand_in


def _stand_in(
    node: Any,
    story: Any,
    cls: type[RemoteError] = RemoteError,
    cause: BaseException | None = None,
) -> RemoteError:
    _, type_name, message, *_ = node
    text, job_id, function = story
    error = cls(
        f"{function} raised {type_name}: {message}",
        type_name=type_name,
        remote_traceback=text,
        job_id=job_id,
        function=function,
    )
    error.__cause__ = cause
    return error


def _append_cause(error: BaseException, last: BaseException) -> None:
    end = error
    while end.__cause__ is not None:
        end = end.__cause__
    suppress = end.__suppress_context__
    _set(end, "__cause__", last)  # suppresses the context too
    _set(end, "__suppress_context__", suppress)
