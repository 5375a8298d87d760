"""What is seen of a pool from outside; told by its conductors, and telling nobody.

Names are loaded on first use, each from where it is: what needs more than the core has
lies above, and brings its libraries along only then.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from offloop.engines.figures import WorkerInfo
    from offloop.loop_watch import Blocked
    from offloop.metrics import PoolCollector, metrics_app
    from offloop.telemetry.durations import Durations
    from offloop.telemetry.tallies import FunctionStats

__all__ = [
    "Blocked",
    "Durations",
    "FunctionStats",
    "PoolCollector",
    "WorkerInfo",
    "metrics_app",
]

_HOMES = {
    "Blocked": "offloop.loop_watch",
    "Durations": "offloop.telemetry.durations",
    "FunctionStats": "offloop.telemetry.tallies",
    "PoolCollector": "offloop.metrics",
    "WorkerInfo": "offloop.engines.figures",
    "metrics_app": "offloop.metrics",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'offloop.telemetry' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
