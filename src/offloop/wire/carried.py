"""The caller's context variables, on their way to its job.

    capture ──▶ places and values, trace context ══▶ restored ──▶ the job's own context

What travels: variables that are a global of some module, if their value can be pickled,
in 64 KiB at most. What stays: variables that live elsewhere (in an object, a closure, a
module written in C such as `decimal`), those of asyncio and its like, whose values mean
something to their own process only, and whatever the job changes.

In the worker a variable is set if its module is there; if not, in the moment when the
job imports it. Nothing is imported for its sake.

A program that has set no variable pays for one look at an empty mapping. The engine
calls `capture` where a job is submitted; a worker calls `restored` before it runs it.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
from contextvars import copy_context
from functools import partial

from offloop.wire import bulk, by_value, on_import, tracing, variables

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs a worker milliseconds at start
    from contextvars import Context, ContextVar
    from typing import Any, TypeAlias

    from offloop.wire.variables import Place

    #: places of a variable, its value, and True if that is a pickle
    Value: TypeAlias = tuple[tuple[Place, ...], Any, bool]
    #: all that travels, plain, so that it can be marshalled; empty if it is nothing
    Carried: TypeAlias = tuple[tuple[Value, ...], tracing.Carrier] | tuple[()]

__all__ = ["capture", "let_go", "restored"]

#: bytes that a value may take
_MOST = 64 * 1024

_TOO_LARGE = f"its value takes more than {_MOST:,} bytes"

#: packages and modules whose variables describe the process, thread or loop that they
#: are set in; ours among them, which says what job runs
_AT_HOME = frozenset(
    {"asyncio", "anyio", "sniffio", "opentelemetry", "offloop.context"}
)

#: values of these types need no pickle
_PLAIN = frozenset({str, bytes, int, float, bool, type(None)})
_SIZED = frozenset({str, bytes})

_CONTAINERS = frozenset({tuple, list, dict, set, frozenset})

#: places of the variables that travel; none for those that stay
_roads: dict[ContextVar[Any], tuple[Place, ...]] = {}
#: variables with types of values that could not be pickled: not tried again
_stuck: set[tuple[ContextVar[Any], type]] = set()
#: variables of which it was said that they stay
_said: set[ContextVar[Any]] = set()


def capture() -> Carried | None:
    """Return what travels of the current context; None if it is nothing."""
    context = copy_context()
    return _pack(context) if context else None


def _pack(context: Context) -> Carried | None:
    values: list[Value] = []
    for variable, value in context.items():
        places = _roads.get(variable)
        if places is None:
            places = _find_road(variable)
        if not places:
            continue
        kind = type(value)
        if kind in _PLAIN and (kind not in _SIZED or len(value) <= _MOST):
            values.append((places, value, False))
        elif kind in _PLAIN:
            _say(variable, _TOO_LARGE)
        elif (variable, kind) not in _stuck:
            payload = _pickled(variable, value)
            if payload is not None:
                values.append((places, payload, True))
    trace = tracing.capture()
    return (tuple(values), trace) if values or trace else None


def _find_road(variable: ContextVar[Any]) -> tuple[Place, ...]:
    places = variables.places_of(variable)
    if any({module, module.partition(".")[0]} & _AT_HOME for module, _ in places):
        places = ()
    elif not places:
        _say(variable, "it is not a global of any module")
    _roads[variable] = places
    return places


def _pickled(variable: ContextVar[Any], value: Any) -> bytes | None:
    """Pickle a value, unless it is large; None if it stays."""
    try:
        payload = bulk.probe(value, _MOST)
    except Exception:
        payload = by_value.MAIN
    try:
        if payload is not None and by_value.MAIN in payload:
            payload = by_value.in_band(value, shared=True)
        why = _TOO_LARGE
    except Exception as error:
        payload, why = None, f"its value cannot be pickled: {error}"
    if payload is None:
        if type(value) not in _CONTAINERS:  # another one may have other content
            _stuck.add((variable, type(value)))
        _say(variable, why)
    return payload


def _say(variable: ContextVar[Any], why: str) -> None:
    if variable not in _said:
        import logging

        _said.add(variable)
        logging.getLogger("offloop").debug(
            "context variable %r does not travel to jobs: %s", variable.name, why
        )


def restored(carried: Carried) -> Context:
    """Return a copy of the current context with what has travelled.

    Call `let_go` when the job that runs in it has ended.
    """
    context = copy_context()
    context.run(_restore, carried)
    return context


def let_go() -> None:
    """Wait no more for modules that the job has not imported."""
    on_import.forget_all()


def _restore(carried: Carried) -> None:
    if not carried:
        return
    values, trace = carried
    for places, value, pickled in values:
        if not _set(places, value, pickled):
            for module, _ in places:
                on_import.watch(module, partial(_set, places, value, pickled))
    if trace and not _attach(trace):
        for module in tracing.MODULES:
            on_import.watch(module, partial(_attach, trace))


def _set(places: tuple[Place, ...], value: Any, pickled: bool) -> bool:
    """Set a variable; False if its module is not here."""
    variable = variables.find(places)
    if variable is None:
        return False
    with contextlib.suppress(Exception):  # else it cannot be rebuilt here, and stays
        variable.set(pickle.loads(value) if pickled else value)
    return True


def _attach(trace: tracing.Carrier) -> bool:
    """Make the caller's span current; False if nobody here could ask for it."""
    if not any(module in sys.modules for module in tracing.MODULES):
        return False
    with contextlib.suppress(Exception):  # half of it may be installed only
        tracing.attach(trace)
    return True
