"""Each function crosses to each worker once, and goes by its number after that.

    name(fn) ── importable? ── yes ──▶ "app", "thumbnail"
                    │ no: a lambda, a closure, a function of __main__
                    ▼
               did anything that it captured change? ── no ──▶ the same number
                    │ yes, or impossible to tell
                    ▼
               cloudpickle ── the same bytes? ── yes ──▶ the same number

`FunctionTable` gives out the numbers in the coordinator, `FunctionCache` keeps the
functions in a worker. Number 0 is `apply`: the callable itself is the first argument,
for what is made anew for each call (bound methods, partials, callable objects).

Neither sends anything: who knows which worker has which function is the conductor.
"""

from __future__ import annotations

import os
import pickle
import sys
import types
import weakref
from functools import partial
from operator import is_

from offloop.errors import NotOffloadable
from offloop.wire import by_value

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs a worker milliseconds at start
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

__all__ = [
    *("APPLY", "Function", "FunctionCache", "FunctionTable", "OwnFunctions"),
    *("apply", "describe"),
]

#: number of the function that applies its first argument to the others
APPLY = 0
#: a definition from this size on earns a warning
LARGE = 1024 * 1024
#: bytes of definitions by value that the table keeps; changing ones might fill memory
KEPT_BYTES = 64 * 1024 * 1024

_REFERENCE, _VALUE = b"R", b"V"
_ATOMS = frozenset({int, float, complex, bool, str, bytes, type(None)})
_EMPTY_CELL = "(empty cell)"
#: entries of a class's namespace that do not change what its instances do
_DECORATION = frozenset({"__dict__", "__weakref__", "__annotations__", "__module__"})
#: what may be watched by a weak reference, beside classes
_WATCHED = frozenset({types.FunctionType, types.BuiltinFunctionType, types.ModuleType})
#: what calling a function of another kind than plain makes
_CALLED = types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType
_GENERATOR = 0x20 | 0x200  # CO_GENERATOR, CO_ASYNC_GENERATOR
_COROUTINE = 0x80 | 0x100  # CO_COROUTINE, CO_ITERABLE_COROUTINE


class Function:
    """What the coordinator knows of one function."""

    __slots__ = ("definition", "extra", "id", "kind", "module", "name", "terms")

    def __init__(
        self, id: int, definition: bytes, name: str, kind: str, module: str | None
    ) -> None:
        #: unique in its table and never given twice; APPLY for callables in arguments
        self.id = id
        #: what `FunctionCache.learn` needs; empty for APPLY, which workers know
        self.definition = definition
        #: for people: "app.thumbnail", "<lambda> (script.py:12)"
        self.name = name
        #: "plain", "async" or "generator", async generators included
        self.kind = kind
        #: what a worker imports to have it; None if it goes by value
        self.module = module
        #: both belong to the conductor, opaque here; what is known of the function
        #: holds for its next definition too, and what its latest call had does not
        self.extra: Any = None
        self.terms: Any = None


class _Entry(weakref.ref[object]):
    """What the table remembers of one living function object."""

    __slots__ = ("bare", "function", "key", "warned", "watched")

    #: id() of the function object: the entry's place in the table
    key: int
    function: Function
    #: its code, if that is all it has: it captured nothing and never can
    bare: types.CodeType | None
    #: everything that the definition depends on; None if that cannot be told
    watched: list[object] | None
    #: the warning about its size was given
    warned: bool


class FunctionTable:
    """Numbers for functions; belongs to one coordinator, and to its thread.

    Args:
        limit: functions by value that are kept; the least recently used go first.
    """

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        self._last_id = APPLY
        #: by id() of living function objects; an entry dies with its function
        self._entries: dict[int, _Entry] = {}
        #: importable functions by definition
        self._references: dict[bytes, Function] = {}
        #: functions by value, by definition; least recently used first
        self._values: dict[bytes, Function] = {}
        #: the last of them
        self._latest: Function | None = None
        #: sum of the sizes of the definitions in `_values`
        self._value_bytes = 0
        #: callables that go by APPLY, by name and kind; oldest first
        self._applied: dict[tuple[str, str], Function] = {}
        self._forgotten: list[int] = []

    def prepare(
        self, fn: Callable[..., Any], args: tuple[Any, ...]
    ) -> tuple[Function, tuple[Any, ...]]:
        """Name a function and give the arguments that its call must carry.

        Raises:
            NotOffloadable: it is no callable, or it captured what cannot travel.
        """
        entry = self._entries.get(id(fn))
        if entry is not None and entry() is fn:
            function = entry.function
            if function.module is not None:
                return function, args
            if function is self._latest and _has_only(fn, entry.bare):
                return function, args  # nothing has changed, nothing is to be moved
        function = self.name(fn)
        return function, args if function.id else (_unwrap(fn), *args)

    def name(self, fn: Callable[..., Any]) -> Function:
        """Return the function's number and definition.

        The same function gives the same `Function`, until something that it captured
        changes.

        Raises:
            NotOffloadable: it is no callable, or it captured what cannot travel.
        """
        entry = self._entries.get(id(fn))
        if entry is None or entry() is not fn:
            return self._name_first(fn)
        if entry.function.module is not None:
            return entry.function
        return self._name_again(fn, entry)

    def drain_forgotten(self) -> list[int]:
        """Return the numbers that no new job will use; workers may forget them."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def _name_first(self, fn: Callable[..., Any]) -> Function:
        target = _unwrap(fn)
        if target is not fn:
            return self.name(target)
        if not callable(fn):
            raise NotOffloadable(_not_callable(fn))
        if not _has_definition(fn):
            return self._apply(fn)
        entry = self._refer(fn)
        if entry is None:
            watched = self._watch(fn)
            entry = self._enter(fn, self._pickle(fn), watched)
            _warn_if_large(fn, entry)
        return entry.function

    def _name_again(self, fn: Callable[..., Any], entry: _Entry) -> Function:
        """Name a function by value, which may have changed or been forgotten."""
        former = entry.function
        bare = _has_only(fn, entry.bare)
        watched = entry.watched if bare else self._watch(fn)
        if bare or _unchanged(entry.watched, watched):
            entry.function = self._intern(former.definition, fn)
        else:
            entry.function, entry.watched = self._pickle(fn), watched
            _warn_if_large(fn, entry)
        if entry.function.extra is None:
            entry.function.extra = former.extra  # the same code: what is known holds
        return entry.function

    def _refer(self, fn: Any) -> _Entry | None:
        """Return the entry of a function that workers can import; None for others."""
        entry = self._entries.get(id(fn))
        if entry is not None and entry() is fn:
            return entry if entry.function.module is not None else None
        found = _reference(fn)
        if found is None:
            return None
        definition = _REFERENCE + "\0".join(found).encode()
        function = self._references.get(definition)
        if function is None:
            function = self._new(definition, fn, module=found[0])
            self._references[definition] = function
        return self._enter(fn, function, None)

    def _enter(
        self, fn: Any, function: Function, watched: list[object] | None
    ) -> _Entry:
        entry = _Entry(fn, self._drop)
        entry.key = id(fn)
        entry.function = function
        entry.watched = watched
        entry.bare = _bare_code(fn)
        entry.warned = False
        self._entries[entry.key] = entry
        return entry

    def _drop(self, entry: Any) -> None:
        del self._entries[entry.key]

    def _apply(self, fn: Any) -> Function:
        key = describe(fn), _kind(fn)
        function = self._applied.pop(key, None)
        if function is None:
            function = Function(APPLY, b"", *key, module=None)
            if len(self._applied) >= self._limit:
                del self._applied[next(iter(self._applied))]
        self._applied[key] = function
        return function

    def _pickle(self, fn: Any) -> Function:
        try:
            definition = _VALUE + by_value.dumps_by_value(fn)
        except Exception as error:
            raise NotOffloadable(_why_not(fn, error)) from error
        return self._intern(definition, fn)

    def _intern(self, definition: bytes, fn: Any) -> Function:
        """Return the function of this definition, now the most recently used.

        One that was forgotten comes back under a new number: workers may be told to
        forget the old one at any moment.
        """
        function = self._values.pop(definition, None)
        if function is None:
            function = self._new(definition, fn, module=None)
            self._value_bytes += len(definition)
        self._values[definition] = self._latest = function
        while self._too_many():
            oldest = self._values.pop(next(iter(self._values)))
            self._value_bytes -= len(oldest.definition)
            self._forgotten.append(oldest.id)
        return function

    def _too_many(self) -> bool:
        count = len(self._values)
        return count > self._limit or (self._value_bytes > KEPT_BYTES and count > 1)

    def _new(self, definition: bytes, fn: Any, module: str | None) -> Function:
        self._last_id += 1
        return Function(self._last_id, definition, describe(fn), _kind(fn), module)

    # What a definition by value depends on

    def _watch(self, fn: Any) -> list[object] | None:
        """List what the definition depends on; None if a change could not be seen.

        Immutable values stand for themselves, functions, classes and modules as weak
        references: the list must not keep alive the function whose entry holds it.
        """
        parts: list[object] = []
        return parts if self._see(fn, parts, set()) else None

    def _see(self, value: Any, parts: list[object], seen: set[int]) -> bool:
        kind = type(value)
        if kind in _ATOMS or _is_atomic_container(value):
            parts.append(value)
            return True
        if kind not in _WATCHED and not isinstance(value, type):
            return False
        parts.append(weakref.ref(value))
        inner = _unwrap(value)
        if inner is not value:
            return self._see(inner, parts, seen)  # the wrapper itself never changes
        if id(value) in seen or kind is types.ModuleType or self._refer(value):
            return True
        seen.add(id(value))
        if kind is types.FunctionType:
            parts.append(value.__code__)
            captured = [one for _, one in _captured(value)]
        elif kind is type:
            captured = list(_content(value))
        else:
            return False  # a metaclass or an odd builtin: nobody knows
        return all(self._see(one, parts, seen) for one in captured)


class OwnFunctions(FunctionTable):
    """Names functions that are called in their own process: nothing of them travels.

    They all go by APPLY; closures that are made of the same lines count as one.
    """

    def prepare(
        self, fn: Callable[..., Any], args: tuple[Any, ...]
    ) -> tuple[Function, tuple[Any, ...]]:
        """Name a function and give the arguments that its call must carry, it first.

        Raises:
            NotOffloadable: it is no callable.
        """
        fn = _unwrap(fn)
        if not callable(fn):
            raise NotOffloadable(_not_callable(fn))
        function = self._apply(fn)
        if function.module is None:
            function.module = getattr(_innermost(fn), "__module__", None) or ""
        return function, (partial(apply, fn) if isinstance(fn, partial) else fn, *args)


def _unchanged(before: list[object] | None, now: list[object] | None) -> bool:
    """Compare by identity: True and 1 are equal, and pickle differently."""
    if before is None or now is None or len(before) != len(now):
        return False
    return all(map(is_, before, now))


def _bare_code(fn: Any) -> types.CodeType | None:
    """Return the code of a function that has nothing else, None for all others.

    Many functions of a script are of this kind, and looking through what the others
    captured takes microseconds at each call.
    """
    if type(fn) is not types.FunctionType or not _has_only(fn, fn.__code__):
        return None
    code = fn.__code__
    if code.co_names or code.co_freevars:
        return None
    for constant in code.co_consts:
        if type(constant) is types.CodeType:
            return None
    return code


def _has_only(fn: Any, code: types.CodeType | None) -> bool:
    """Tell whether a function still is that code (not None) and nothing besides."""
    return (
        code is not None
        and fn.__code__ is code
        and fn.__defaults__ is None
        and fn.__kwdefaults__ is None
        and not fn.__dict__
    )


def _is_atomic_container(value: Any) -> bool:
    return type(value) in (tuple, frozenset) and all(
        type(one) in _ATOMS or _is_atomic_container(one) for one in value
    )


def _captured(fn: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield the name and value of all that a function takes from its surroundings."""
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:
            yield name, _EMPTY_CELL
    namespace = fn.__globals__
    for name in _names(fn.__code__):
        if name in namespace:
            yield name, namespace[name]
    for index, value in enumerate(fn.__defaults__ or ()):
        yield f"default value {index + 1}", value
    yield from (fn.__kwdefaults__ or {}).items()
    yield from vars(fn).items()


def _names(code: types.CodeType) -> Iterator[str]:
    """Yield all names that may be globals, those of inner functions included."""
    yield from code.co_names
    for constant in code.co_consts:
        if type(constant) is types.CodeType:
            yield from _names(constant)


def _content(cls: type) -> Iterator[Any]:
    yield from cls.__bases__
    for name, value in vars(cls).items():
        if isinstance(value, (staticmethod, classmethod)):
            yield value.__func__
        elif isinstance(value, property):
            yield from (value.fget, value.fset, value.fdel)
        elif name not in _DECORATION:
            yield value


# ---- what a callable is --------------------------------------------------------------


def _has_definition(fn: Any) -> bool:
    """Tell functions and classes from what is made anew for each call."""
    if type(fn) is types.BuiltinFunctionType:
        return _reference(fn) is not None  # [].append is one too
    return type(fn) is types.FunctionType or isinstance(fn, type)


def _reference(fn: Any) -> tuple[str, str] | None:
    """Return the module and name by which any process can import this very object."""
    module_name, name = fn.__module__, fn.__qualname__
    module = sys.modules.get(module_name)
    if module is None or by_value.script_module(module_name) is not None:
        return None
    if _is_wanted_by_value(module_name):
        return None
    found = _lookup(module, name)
    return (module_name, name) if found is fn or _unwrap(found) is fn else None


def _is_wanted_by_value(module_name: str) -> bool:
    """Tell whether the user told cloudpickle so (a module that workers do not have)."""
    cloudpickle = sys.modules.get("cloudpickle")
    if cloudpickle is None:
        return False
    wanted = cloudpickle.list_registry_pickle_by_value()
    return any(f"{module_name}.".startswith(f"{name}.") for name in wanted)


def _lookup(module: Any, name: str) -> Any:
    """Follow a dotted name; None where it leads nowhere, as with ``<locals>``."""
    found = module
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


def _unwrap(fn: Any) -> Any:
    """Return what `@offload` decorated; other decorators stay."""
    while getattr(fn, "__offloop__", False) is True:
        fn = fn.__wrapped__
    return fn


def _innermost(fn: Any) -> Any:
    """Return the function that runs in the end when `fn` is called."""
    while True:
        if isinstance(fn, partial):
            fn = fn.func
        elif type(fn) is types.MethodType:
            fn = fn.__func__
        elif _unwrap(fn) is not fn:
            fn = _unwrap(fn)
        else:
            return fn


def _kind(fn: Any) -> str:
    fn = _innermost(fn)
    if type(fn) is not types.FunctionType:
        fn = _innermost(type(fn).__call__)
    flags = fn.__code__.co_flags if type(fn) is types.FunctionType else 0
    if flags & _GENERATOR:
        return "generator"
    return "async" if flags & _COROUTINE else "plain"


def describe(fn: Any) -> str:
    """Return the name that a callable goes by, for people."""
    inner = _innermost(fn)
    name = getattr(inner, "__qualname__", None)
    if name is None:
        return f"{type(inner).__module__}.{type(inner).__qualname__} object"
    module = getattr(inner, "__module__", None)
    code = getattr(inner, "__code__", None)
    if code is not None and (
        module is None or by_value.script_module(module) or "<" in name
    ):
        file = os.path.basename(code.co_filename)
        return f"{name.rpartition('<locals>.')[2]} ({file}:{code.co_firstlineno})"
    return name if module in (None, "builtins", "__main__") else f"{module}.{name}"


# ---- messages ------------------------------------------------------------------------


def _not_callable(fn: Any) -> str:
    if isinstance(fn, _CALLED):
        name = fn.__name__
        return (
            f"got the {type(fn).__name__} that {name}(...) made: you called the "
            f"function; pass {name} itself, and its arguments after it"
        )
    return (
        f"a function is needed, and {fn!r:.80} (of type {type(fn).__qualname__}) is "
        "none; if it is the result of a call, pass the function and its arguments"
    )


def _why_not(fn: Any, error: Exception) -> str:
    """Name what keeps a function from travelling."""
    culprits = []
    for name, value in _captured(fn) if type(fn) is types.FunctionType else ():
        try:
            by_value.in_band(value)
        except Exception:
            culprits.append(f"{name!r} (of type {type(value).__qualname__})")
    because = (
        f"it uses {', '.join(dict.fromkeys(culprits))}, which" if culprits else "it"
    )
    return (
        f"{describe(fn)}: {because} cannot be sent to another process: "
        f"{type(error).__name__}: {error}. Make such things inside the job, or once "
        "per worker in `initializer`, or define the function in a module of its own"
    )


def _warn_if_large(fn: Any, entry: _Entry) -> None:
    size = len(entry.function.definition)
    if size < LARGE or entry.warned:
        return
    import warnings

    entry.warned = True
    names = [name for name, _ in _captured(fn)] if hasattr(fn, "__code__") else []
    warnings.warn(
        f"{entry.function.name} takes {size / 1024 / 1024:.1f} MiB to every worker, "
        f"because it uses {', '.join(dict.fromkeys(names)) or 'large values'}: pass "
        "such values as arguments, or use `Pool.put`",
        RuntimeWarning,
        stacklevel=2,
    )


# ---- in the worker -------------------------------------------------------------------


class FunctionCache:
    """The functions that a worker has been told of, by number."""

    def __init__(self) -> None:
        #: modules that were first imported to have a function; the worker empties it
        self.imported: list[str] = []
        self._definitions: dict[int, bytes] = {}
        #: the callables of those numbers that have been asked for
        self._resolved: dict[int, Callable[..., Any]] = {APPLY: apply}

    def learn(self, id: int, definition: bytes) -> None:
        """Note what a number stands for; nothing is imported yet."""
        self._definitions[id] = definition

    def get(self, id: int) -> Callable[..., Any]:
        """Return the function of a number.

        Raises:
            LookupError: the number was never learnt, or is forgotten.
            Exception: what importing the function raised, at each attempt anew.
        """
        function = self._resolved.get(id)
        if function is None:
            if id not in self._definitions:
                raise LookupError(f"this worker does not know function {id}")
            function = self._resolved[id] = self._resolve(self._definitions[id])
        return function

    def forget(self, ids: Iterable[int]) -> None:
        """Drop functions that no new job will use; unknown numbers are no error."""
        for id in ids:
            self._definitions.pop(id, None)
            self._resolved.pop(id, None)

    def _resolve(self, definition: bytes) -> Callable[..., Any]:
        if definition[:1] == _VALUE:
            function: Callable[..., Any] = pickle.loads(definition[1:])
            return function
        module_name, name = definition[1:].decode().split("\0")
        if module_name not in sys.modules:
            __import__(module_name)
            self.imported.append(module_name)
        function = _unwrap(_lookup(sys.modules[module_name], name))
        if not callable(function):
            file = getattr(sys.modules[module_name], "__file__", None)
            raise AttributeError(
                f"module {module_name} ({file}) has no function {name} in this "
                "process; is it made while the program runs, or of another version?"
            )
        return function


def apply(fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call a callable that travelled as an argument: the function of number 0."""
    if isinstance(fn, partial):
        # Called as it is, an `@offload` function would go to a pool again.
        return _unwrap(fn.func)(*fn.args, *args, **{**fn.keywords, **kwargs})
    return _unwrap(fn)(*args, **kwargs)
