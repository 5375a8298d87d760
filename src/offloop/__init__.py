"""Take the work off the loop: every core for asyncio programs.

Names are loaded on first use (PEP 562), so that a worker process, which imports
`offloop.worker` and with it this file, does not drag in asyncio.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from offloop.context import JobContext, current_job
    from offloop.decorator import Offloaded, OffloadedStream, configure, offload
    from offloop.executor import Executor
    from offloop.loop_watch import LoopWatch, watch_loop
    from offloop.options import Batch, Recycle
    from offloop.pool import Job, Pool, PoolStats, Progress, Results, Stream
    from offloop.program import run
    from offloop.showing import progress
    from offloop.web import lifespan

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Executor",
    "Job",
    "JobContext",
    "LoopWatch",
    "Offloaded",
    "OffloadedStream",
    "Pool",
    "PoolStats",
    "Progress",
    "Recycle",
    "Results",
    "Stream",
    "configure",
    "current_job",
    "lifespan",
    "offload",
    "progress",
    "run",
    "watch_loop",
]

_HOMES = {
    "Batch": "offloop.options",
    "Executor": "offloop.executor",
    "Job": "offloop.pool",
    "JobContext": "offloop.context",
    "LoopWatch": "offloop.loop_watch",
    "Offloaded": "offloop.decorator",
    "OffloadedStream": "offloop.decorator",
    "Pool": "offloop.pool",
    "PoolStats": "offloop.pool",
    "Progress": "offloop.pool",
    "Recycle": "offloop.options",
    "Results": "offloop.ahead",
    "Stream": "offloop.pool",
    "configure": "offloop.decorator",
    "current_job": "offloop.context",
    "lifespan": "offloop.web",
    "offload": "offloop.decorator",
    "progress": "offloop.showing",
    "run": "offloop.program",
    "watch_loop": "offloop.loop_watch",
}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'offloop' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
