"""Finds an engine by its name. The only module that knows which ones there are."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from offloop.errors import UsageError

if TYPE_CHECKING:
    from typing import Protocol

    from offloop.engines.base import Engine
    from offloop.options import PoolOptions
    from offloop.telemetry.events import Listeners

    class EngineType(Protocol):
        """An engine's class."""

        def __call__(self, options: PoolOptions, listeners: Listeners, /) -> Engine: ...

        def check(self, options: PoolOptions) -> None: ...


_ENGINES = {
    "local": ("offloop.engines.local", "LocalEngine"),
    "inline": ("offloop.engines.inline", "InlineEngine"),
    "shared": ("offloop.engines.shared", "SharedEngine"),
    "thread": ("offloop.engines.thread", "ThreadEngine"),
}


def load_engine(name: str) -> EngineType:
    """Import an engine and return its class.

    Importing takes some 50 ms once, so it is done when a pool or an offloaded function
    is made and not when it is first used: a loop runs then.

    Raises:
        UsageError: when this version does not have the engine.
    """
    kind = name.partition("://")[0]
    if kind not in _ENGINES:
        raise UsageError(
            f"engine {name!r} is not part of this version; there are: "
            f"{', '.join(_ENGINES)}"
        )
    module, attribute = _ENGINES[kind]
    engine: EngineType = getattr(import_module(module), attribute)
    return engine
