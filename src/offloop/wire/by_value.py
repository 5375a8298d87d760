"""Pickling for another process: by reference where it can import, by value elsewhere.

`in_band` is the plain way in. The C pickler does it all, until something lives where no
other process can import it from: in ``__main__``, a REPL, a notebook, a closure. Then
cloudpickle does it, under three rules that make a script behave as a module would:

- Functions of one script share their globals in a worker, from job to job, as they do
  here: what `initializer` stores in a global is there for the jobs. A global is only
  overwritten if its value in the sender changed since it was last sent.
- A class belongs to the process that defined it. When an instance comes home, the copy
  of the class that travelled with it does not replace the methods of the original.
- Code keeps the name of its file, so that a traceback shows the line that failed.

It knows nothing of calls, results, exceptions or functions' names: those are `codec`,
`failures` and `functions`, which stand on it. cloudpickle is imported at the first
need, because a worker that runs importable functions never needs it.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
import weakref
from contextvars import ContextVar

from offloop.wire import variables

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs a worker milliseconds at start
    from collections.abc import Callable
    from typing import Any

__all__ = ["MAIN", "dumps_by_value", "in_band", "pickler", "script_module", "trial"]

#: found in a pickle that refers to ``__main__`` or multiprocessing's ``__mp_main__``.
#: Such a reference resolves here and fails in a worker, whose ``__main__`` is another.
#: A text that merely contains the name takes the slower way, with the same result.
MAIN = b"_main__"

#: True: the class was defined here, False: it came from another process
_own: weakref.WeakKeyDictionary[type, bool] = weakref.WeakKeyDictionary()
#: globals of the scripts whose functions came here: the values, and their marks
_namespaces: dict[str, tuple[dict[str, Any], dict[str, int | None]]] = {}
#: cloudpickle's pickler with the rules; None until it is first needed
_pickler: Any = None
#: tells this process and its forks from all others; empty until it is first needed
_sender = ""


def in_band(obj: object, *, shared: bool = False) -> bytes:
    """Pickle with everything inside; `shared` as in `dumps_by_value`."""
    try:
        payload = pickle.dumps(obj, 5)
    except Exception:
        payload = MAIN
    return dumps_by_value(obj, shared=shared) if MAIN in payload else payload


def dumps_by_value(
    obj: object,
    buffer_callback: Callable[[pickle.PickleBuffer], object] | None = None,
    *,
    shared: bool = True,
) -> bytes:
    """Pickle with cloudpickle: lambdas, closures, and all that lives in ``__main__``.

    Args:
        obj: anything that cloudpickle takes.
        buffer_callback: as in `pickle.dumps`.
        shared: functions of a script share their globals where they are loaded. That is
            for what is sent to workers; what a worker returns keeps to itself.
    """
    file = io.BytesIO()
    pickler(file, 5, buffer_callback, shared=shared).dump(obj)
    return file.getvalue()


def pickler(
    file: Any,
    protocol: int,
    buffer_callback: Callable[[pickle.PickleBuffer], object] | None,
    *,
    shared: bool,
) -> Any:
    """Return the pickler of `dumps_by_value`, for a file of the caller's."""
    global _pickler
    if _pickler is None:
        _pickler = _define_pickler()
    new = _pickler(file, protocol, buffer_callback)
    new.shared = shared
    return new


def trial(obj: object) -> tuple[bytes, Any] | None:
    """Pickle and load at once; None if either fails.

    Returns:
        The payload and the copy.
    """
    try:
        payload = in_band(obj)
        return payload, _Trial(io.BytesIO(payload)).load()
    except Exception:
        return None


def script_module(name: object) -> types.ModuleType | None:
    """Return the module of this name if it exists here and could not be imported.

    Such are ``__main__`` and what a program or a notebook made without a file.
    """
    module = sys.modules.get(name) if isinstance(name, str) else None
    if name in ("__main__", "__mp_main__") or getattr(module, "__spec__", None) is None:
        return module
    return None


class _Trial(pickle.Unpickler):
    """Loads what this process has just written, and leaves its classes as they are."""

    def find_class(self, module: str, name: str) -> Any:
        if module == __name__ and name == _fill_class.__name__:
            return lambda cls, state: None
        return super().find_class(module, name)


def _define_pickler() -> Any:
    import cloudpickle

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is untyped
        #: see `dumps_by_value`
        shared = True

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, types.CodeType):
                return _keep_file(obj, self.dispatch_table[types.CodeType](obj))
            if not isinstance(obj, (type, types.FunctionType)):
                if isinstance(obj, ContextVar):
                    return variables.reduce(obj)
                return NotImplemented
            script = script_module(obj.__module__)
            if script is not None and obj.__module__ != "__main__":
                cloudpickle.register_pickle_by_value(script)
            reduced = super().reducer_override(obj)
            # Only what goes by value comes with a function that fills it, at the end.
            if type(reduced) is not tuple or len(reduced) != 6:
                return reduced
            if isinstance(obj, type):
                return _keep_owner(obj, reduced)
            if self.shared and script is not None:
                return _share_globals(obj.__module__, reduced)
            return reduced

    return ByValue


# ---- a class belongs to the process that defined it ----------------------------------


def _keep_owner(cls: type, reduced: Any) -> Any:
    _own.setdefault(cls, True)
    make, args, state, _, _, fill = reduced
    return make, args, (fill, state), None, None, _fill_class


def _fill_class(cls: type, state: tuple[Callable[..., object], object]) -> None:
    if not _own.setdefault(cls, False):
        fill, content = state
        fill(cls, content)


# ---- code keeps the name of its file ------------------------------------------------


def _keep_file(code: types.CodeType, reduced: Any) -> Any:
    make, args = reduced
    return _make_code, (code.co_filename, make, *args)


def _make_code(file: str, make: Callable[..., types.CodeType], *args: Any) -> Any:
    return make(*args).replace(co_filename=file)


# ---- functions of one script share their globals -------------------------------------


def _share_globals(name: str, reduced: Any) -> Any:
    global _sender
    _sender = _sender or os.urandom(8).hex()
    key = f"{_sender}-{os.getpid()}-{name}"
    make, args, (attributes, slots), _, _, fill = reduced
    marks = {name: _mark(value) for name, value in slots["__globals__"].items()}
    state = (key, marks, fill, attributes, slots)
    return _make_function, (key, make, *args), state, None, None, _fill_function


def _mark(value: object) -> int | None:
    """Return what tells a value from its later ones; None: overwrite it always."""
    try:
        payload = pickle.dumps(value, 5)
    except Exception:
        return None
    # A reference has the same bytes, though what it names may be another by now.
    refers = isinstance(value, (type, types.FunctionType)) or MAIN in payload
    return None if refers else hash(payload)


def _make_function(
    key: str, make: Callable[..., Any], code: object, namespace: Any, *rest: Any
) -> Any:
    shared, _ = _namespaces.setdefault(key, (namespace, {}))
    return make(code, shared, *rest)


def _fill_function(function: Any, state: tuple[Any, ...]) -> None:
    key, marks, fill, attributes, slots = state
    _, known = _namespaces[key]
    changed = {
        name: value
        for name, value in slots["__globals__"].items()
        if marks[name] is None or known.get(name) != marks[name]
    }
    known.update(marks)
    fill(function, (attributes, {**slots, "__globals__": changed}))
