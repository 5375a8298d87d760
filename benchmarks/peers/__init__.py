"""Those that are compared, one file each, every one behind the same face.

    peer = peers.load("loky")(workers=2)
    await peer.start()
    result = await peer.call(function, argument)
    await peer.close()

What each must do stands in `interface`; a file shows at a glance that its peer is used
as its documentation says, with the settings that suit it best. A peer that is not
installed, or that cannot do a case, is named in the tables with the reason.
"""

from __future__ import annotations

from importlib import import_module, metadata
from time import perf_counter

from peers.interface import CannotDo, Peer

__all__ = [
    "ALL",
    "HEAVY",
    "ONCE",
    "PEERS",
    "PROGRAMS",
    "SLOWEST",
    "CannotDo",
    "Peer",
    "load",
    "version",
]

#: name, and the module, class and distribution behind it
PEERS = {
    "offloop": ("offloop", "Offloop", "offloop"),
    "offloop, pool.empty": ("offloop", "OffloopEmpty", "offloop"),
    "offloop, no arena": ("offloop", "OffloopInBand", "offloop"),
    "inline": ("inline", "Inline", None),
    "asyncio.to_thread": ("to_thread", "ToThread", None),
    "ProcessPoolExecutor": ("process_pool_executor", "Executor", None),
    "multiprocessing.Pool": ("multiprocessing_pool", "MultiprocessingPool", None),
    "loky": ("loky", "Loky", "loky"),
    "joblib": ("joblib", "Joblib", "joblib"),
    "pebble": ("pebble", "Pebble", "pebble"),
    "mpire": ("mpire", "Mpire", "mpire"),
    "aiomultiprocess": ("aiomultiprocess", "Aiomultiprocess", "aiomultiprocess"),
    "anyio.to_process": ("anyio_to_process", "AnyioToProcess", "anyio"),
    "executorlib": ("executorlib", "Executorlib", "executorlib"),
    "ipyparallel": ("ipyparallel", "Ipyparallel", "ipyparallel"),
    "dask": ("dask", "Dask", "distributed"),
    "ray": ("ray", "Ray", "ray"),
}

#: those that measure in another language, and their program
PROGRAMS = {"piscina (Node)": "piscina.mjs"}

#: for cases that name them; most cases compare all others
_NAMED = ("offloop, pool.empty", "offloop, no arena", "inline")
ALL = (*(name for name in PEERS if name not in _NAMED), *PROGRAMS)

#: start in seconds, and so left out of some cases
HEAVY = ("ipyparallel", "dask", "ray")

#: those that take seconds for each case, and are far behind in what a call costs
SLOWEST = ("ipyparallel", "aiomultiprocess", "executorlib")

#: far behind, or slow to start: one round of them leaves time for those that are close
ONCE = (*HEAVY, "joblib", "mpire", "aiomultiprocess", "executorlib")


def load(name: str) -> type[Peer]:
    """Return the class behind a name.

    Raises:
        CannotDo: it is not installed.
    """
    module, attribute, _ = PEERS[name]
    began = perf_counter()
    try:
        found = getattr(import_module(f"peers.{module}"), attribute)
    except ImportError as error:
        raise CannotDo(f"is not installed ({error})") from None
    found.import_seconds = perf_counter() - began
    found.name = name
    return found


def version(name: str) -> str | None:
    """Return which version is installed, if it is a package of its own."""
    distribution = PEERS[name][2]
    try:
        return distribution and metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
