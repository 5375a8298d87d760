"""What can be read of a machine that matters to a pool. It judges nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import sys
from dataclasses import dataclass, field
from pathlib import Path

from offloop import __version__, folders, machine
from offloop.errors import StartError
from offloop.groups import MEMBERSHIP, ROOT, own_groups

# What a pool or its payloads are made with, installed or not.
_PACKAGES = ("pyzmq", "cloudpickle", "uvloop", "numpy", "click", "uvicorn")

#: variables by which libraries take a thread for each core
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Facts:
    """A machine, as this process is allowed to use it.

    Attributes:
        offloop, python, system: versions; the system's with its kernel.
        gil: False on a free-threaded interpreter that runs without a lock.
        packages: versions of those that are installed.
        cores: that the machine shows.
        affinity: cores that this process may run on.
        quota: CPUs of the control group; None: no quota.
        throttled: share of the periods in which the quota has held it up.
        workers: of a pool that was told no number.
        load: processes that want a core, as an average of the last minute.
        memory: bytes that this process and its children may use.
        available: bytes that are free for it now; 0: nobody tells.
        open_files: how many it may open.
        processes: how many more it may start; None: no limit.
        address_space: bytes that a process may map; None: no limit.
        memfd: anonymous shared memory can be had.
        pidfd: the end of a process can be watched.
        sockets: directory of sockets; "" if there is none.
        sockets_trouble: why there is none.
        start_method: of `multiprocessing`, which offloop does not use.
        variables: those of OFFLOOP_ and of thread pools that are set.
    """

    offloop: str = __version__
    python: str = ""
    system: str = ""
    gil: bool = True
    packages: dict[str, str] = field(default_factory=dict)
    cores: int = 1
    affinity: int = 1
    quota: float | None = None
    throttled: float = 0.0
    workers: int = 1
    load: float = 0.0
    memory: int = 0
    available: int = 0
    open_files: int = 1024
    processes: int | None = None
    address_space: int | None = None
    memfd: bool = True
    pidfd: bool = True
    sockets: str = ""
    sockets_trouble: str = ""
    start_method: str = ""
    variables: dict[str, str] = field(default_factory=dict)


def gather() -> Facts:
    """Read all of it, which takes some milliseconds."""
    sockets, trouble = _sockets()
    cores = os.cpu_count() or 1
    affinity = cores
    if hasattr(os, "sched_getaffinity"):
        affinity = len(os.sched_getaffinity(0))
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    implementation = platform.python_implementation()
    return Facts(
        python=f"{implementation} {platform.python_version()}",
        system=f"{platform.system()} {platform.release()}",
        gil=getattr(sys, "_is_gil_enabled", lambda: True)(),
        packages=_packages(),
        cores=cores,
        affinity=affinity,
        quota=machine.cpu_quota(),
        throttled=throttled(),
        workers=machine.default_max_workers(),
        load=os.getloadavg()[0],
        memory=machine.memory_allowance(),
        available=_available(),
        open_files=files,
        processes=processes_left(),
        address_space=None if space == resource.RLIM_INFINITY else space,
        memfd=hasattr(os, "memfd_create"),
        pidfd=hasattr(os, "pidfd_open"),
        sockets=sockets,
        sockets_trouble=trouble,
        start_method=_start_method(),
        variables={
            name: value
            for name, value in sorted(os.environ.items())
            if name.startswith("OFFLOOP_") or name in THREAD_VARIABLES
        },
    )


def throttled(root: str = ROOT, membership: str = MEMBERSHIP) -> float:
    """Return the share of the scheduler's periods that the quota has cut short."""
    share = 0.0
    for folder in own_groups(root, membership, "cpu"):
        words = _words(Path(folder, "cpu.stat"))
        periods = words.get("nr_periods", 0)
        if periods:
            share = max(share, words.get("nr_throttled", 0) / periods)
    return share


def processes_left(root: str = ROOT, membership: str = MEMBERSHIP) -> int | None:
    """Return how many more processes the control group allows; None: any number."""
    left = []
    for folder in own_groups(root, membership, "pids"):
        try:
            limit = Path(folder, "pids.max").read_text().strip()
            used = Path(folder, "pids.current").read_text().strip()
        except OSError:
            continue
        if limit.isdigit() and used.isdigit():
            left.append(int(limit) - int(used))
    return min(left, default=None)


def _words(path: Path) -> dict[str, int]:
    """Read a file of names and numbers, one pair a line."""
    try:
        pairs = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return {}
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def _available() -> int:
    try:
        text = Path("/proc/meminfo").read_text()
        return int(text.partition("MemAvailable:")[2].split(maxsplit=1)[0]) * 1024
    except (OSError, ValueError, IndexError):
        return 0


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    import zmq

    found["libzmq"] = zmq.zmq_version()
    return found


def _sockets() -> tuple[str, str]:
    try:
        folder = folders.Folder()
    except StartError as error:
        return "", str(error)
    folder.remove()
    return str(Path(folder.path).parent), ""


def _start_method() -> str:
    import multiprocessing

    method: str = multiprocessing.get_start_method(allow_none=True) or ""
    return method or multiprocessing.get_all_start_methods()[0]
