"""Calls something in the moment when a module has been imported.

    watch(name, action) ──▶ import name ──▶ its code has run ──▶ action()

A job finds its caller's context in a module that it imports itself, and nothing is
imported for the sake of those that do not. While nothing is watched for, imports are
not touched. It never imports anything by itself.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs a worker milliseconds at start
    from collections.abc import Callable
    from typing import Any

__all__ = ["forget_all", "watch"]

#: what to call, by the name of the module
_actions: dict[str, list[Callable[[], object]]] = {}
#: the same for what is not forgotten
_lasting: dict[str, list[Callable[[], object]]] = {}


def watch(name: str, action: Callable[[], object], *, always: bool = False) -> None:
    """Call `action` once the module has been imported, if that happens.

    Args:
        name: of the module; it must not be here yet.
        action: what to call.
        always: `forget_all` does not concern it.
    """
    if not _actions and not _lasting:
        sys.meta_path.insert(0, _FINDER)
    (_lasting if always else _actions).setdefault(name, []).append(action)


def forget_all() -> None:
    """Call nothing any more of what was not asked for `always`."""
    if _actions:
        _actions.clear()
        if not _lasting:
            sys.meta_path.remove(_FINDER)


class _Finder:
    """Stands before all finders, and has the others find what is watched for."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _actions and name not in _lasting:
            return None
        for finder in list(sys.meta_path):
            spec = None if finder is self else finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:  # as that of a package without a file
                    standing_in: Any = _Loader(spec.loader)
                    spec.loader = standing_in
                return spec
        return None


class _Loader:
    """Stands for the loader of one module until the module's code has run."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def exec_module(self, module: Any) -> None:
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        name = module.__name__
        for action in (*_actions.get(name, ()), *_lasting.get(name, ())):
            action()


_FINDER: Any = _Finder()
