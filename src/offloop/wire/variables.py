"""Where a context variable lives, so that two processes can mean the same one.

A `ContextVar` cannot be pickled, and does not know its module. What two processes have
in common is the place: the global name, in some module, by which code finds it. Several
modules may have it, since they import it from one another; all of them are its places,
because another process need not have imported the same ones.

A variable of a script (``__main__``), which no other process can import, is made anew
there, once, by its place.

Knows no job and no pickle; imports nothing that is not there, but for code that refers
to it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from contextvars import Context, ContextVar
from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs a worker milliseconds at start
    from typing import Any, TypeAlias

    #: module and global name
    Place: TypeAlias = tuple[str, str]

__all__ = ["find", "places_of", "reduce"]

_SCRIPTS = ("__main__", "__mp_main__")
_STANDARD = os.path.dirname(os.__file__)

#: places of the variables that were seen in a module, or asked for in vain
_places: dict[ContextVar[Any], tuple[Place, ...]] = {}
#: modules that were looked through; what they get later is not noticed
_searched: set[str] = set()
#: variables of scripts of other processes, by place
_made: dict[Place, ContextVar[Any]] = {}


def places_of(variable: ContextVar[Any]) -> tuple[Place, ...]:
    """Return where a variable is found; nowhere if it is no module's global.

    The first time, all modules that the process has are looked through, which takes
    half a millisecond for a thousand of them, and later only those that are new.
    """
    found = _places.get(variable)
    if found is None:
        _search()
        found = _places.setdefault(variable, ())
    return found


def find(places: tuple[Place, ...]) -> ContextVar[Any] | None:
    """Return the variable that is at one of the places; None if it is not here yet."""
    for place in places:
        variable = _made.get(place)
        if variable is not None:
            return variable
        name, attribute = place
        module = sys.modules.get(name)
        if module is not None:
            variable = getattr(module, attribute, None)
            if type(variable) is ContextVar:
                return variable
    return None


def reduce(variable: ContextVar[Any]) -> tuple[Any, ...]:
    """Return how a variable is pickled that code by value refers to.

    Raises:
        TypeError: it is no module's global.
    """
    places = places_of(variable)
    if not places:
        raise TypeError(
            f"context variable {variable.name!r} is not a global of any module, so no "
            "other process can find it"
        )
    default: tuple[Any, ...] = ()
    with contextlib.suppress(LookupError):
        default = (Context().run(variable.get),)
    # Where several modules have it, the small one is likely to be its home.
    order = sorted(places, key=lambda place: len(vars(sys.modules[place[0]])))
    return _restore, (variable.name, tuple(order), default)


def _restore(
    name: str, places: tuple[Place, ...], default: tuple[Any, ...]
) -> ContextVar[Any]:
    variable = find(places)
    if variable is not None:
        return variable
    for module, attribute in places:
        if module not in _SCRIPTS:
            found: ContextVar[Any] = getattr(import_module(module), attribute)
            return found
    place = places[0]
    if default:
        made: ContextVar[Any] = ContextVar(name, default=default[0])
    else:
        made = ContextVar(name)
    return _made.setdefault(place, made)


def _search() -> None:
    """Note the places of all variables in modules that were not looked through."""
    found: dict[ContextVar[Any], list[Place]] = {}
    modules = {name: sys.modules[name] for name in sys.modules.keys() - _searched}
    _searched.update(modules)
    for name, module in modules.items():
        content = getattr(module, "__dict__", None)
        if type(content) is not dict:
            continue
        if "ContextVar" in content or "contextvars" in content or _is_own(content):
            spec = content.get("__spec__")
            if name in _SCRIPTS or getattr(spec, "_initializing", False):
                _searched.discard(name)  # it is not complete
            for attribute, value in list(content.items()):
                if type(value) is ContextVar:
                    found.setdefault(value, []).append((name, attribute))
    for variable, places in found.items():
        known = _places.get(variable, ())
        _places[variable] = tuple(dict.fromkeys((*known, *places)))


def _is_own(content: dict[str, Any]) -> bool:
    """Tell whether a module is the program's and not a library's.

    A library that has a variable makes it by the name of `ContextVar`: to look at each
    of its globals as well would take ten times as long.
    """
    file = content.get("__file__")
    if not isinstance(file, str):
        return content.get("__spec__") is None  # made by a script or a notebook
    return "-packages" not in file and not file.startswith(_STANDARD)
