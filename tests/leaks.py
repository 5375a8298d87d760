"""What a test leaves behind: processes, threads, descriptors, files, shared blocks.

`take` notes what this process holds now; `find` tells what it holds in addition later.
While all is well both only read `/proc`, which takes a tenth of a millisecond. Upon a
suspicion, garbage is collected and endings that are under way are waited for.

A process counts if this one is its ancestor, also when the process between them is
gone: `adopt_orphans` makes the kernel hand those to this one.
"""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import time
from dataclasses import dataclass

import psutil

# Opened once by the interpreter or by the test tools, and kept: not a leak of the test.
_KEPT = ("/dev/urandom", "/dev/null", ".coverage", ".hypothesis")

_PR_SET_CHILD_SUBREAPER = 36

#: processes that several tests use: whom they start is no test's own affair
shared: set[int] = set()


@dataclass(slots=True)
class Snapshot:
    """What this process holds at one moment."""

    #: process ids of the children and their children
    processes: set[int]
    #: threads that Python knows
    threads: set[threading.Thread]
    #: descriptor and what it leads to, so that a reused number is noticed
    descriptors: set[tuple[int, str]]
    #: paths below the private runtime directory, and of shared memory
    files: set[str]

    def is_within(self, earlier: Snapshot) -> bool:
        """Tell whether everything here was there already."""
        return (
            self.processes <= earlier.processes
            and self.threads <= earlier.threads
            and self.descriptors <= earlier.descriptors
            and self.files <= earlier.files
        )


def take(runtime: str) -> Snapshot:
    """Note what this process holds now.

    Args:
        runtime: directory in which this process, and no other, makes temporary files.
    """
    return Snapshot(
        processes=_processes(),
        threads=set(threading.enumerate()),
        descriptors=_descriptors(),
        files=_entries(runtime) | _shared_blocks(),
    )


def find(before: Snapshot, runtime: str, patience: float = 5.0) -> list[str]:
    """Describe what is held now and was not held `before`; nothing: an empty list.

    Processes and threads that are ending get `patience` seconds to do so. Processes
    that stay are killed, so that they do not outlive the test run.
    """
    after = take(runtime)
    if after.is_within(before):
        return []
    gc.collect()  # a cycle may hold a descriptor: that is no leak
    stayed = _wait_processes(_processes() - before.processes, patience)
    _wait_threads(set(threading.enumerate()) - before.threads, patience)
    after = take(runtime)
    return [
        *stayed,
        *(f"thread {t.name}" for t in after.threads - before.threads),
        *(
            f"fd {n} -> {to}"
            for n, to in sorted(after.descriptors - before.descriptors)
        ),
        *(f"file {path}" for path in _ours(after.files - before.files)),
    ]


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent has gone."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _processes() -> set[int]:
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        children = _children(waiting.pop()) - found
        found |= children
        waiting.extend(children - shared)
    return found


def _children(pid: int) -> set[int]:
    children: set[int] = set()
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                children.update(map(int, file.read().split()))
    except (FileNotFoundError, ProcessLookupError):
        pass  # the process or one of its threads has just ended
    return children


def _descriptors() -> set[tuple[int, str]]:
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:  # the one that lists the directory
            continue
        if not any(name in target for name in _KEPT):
            found.add((int(number), target))
    return found


def _entries(directory: str) -> set[str]:
    return {f"{directory}/{name}" for name in os.listdir(directory)}


def _shared_blocks() -> set[str]:
    """Return what is ours in shared memory, where browsers and others live too.

    Semaphores and blocks of `multiprocessing` are others': offloop has none.
    """
    return {
        path for path in _entries("/dev/shm") if path.startswith("/dev/shm/offloop")
    }


def _wait_processes(pids: set[int], patience: float) -> list[str]:
    processes = []
    for pid in pids:
        try:
            processes.append((psutil.Process(pid), _command(pid)))
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs([process for process, _ in processes], patience)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, patience)
    return [f"process {p.pid}: {text}" for p, text in processes if p in alive]


def _command(pid: int) -> str:
    with open(f"/proc/{pid}/cmdline") as file:
        return file.read().replace("\0", " ").strip()


def _wait_threads(threads: set[threading.Thread], patience: float) -> None:
    deadline = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _ours(paths: set[str]) -> list[str]:
    """Leave out shared memory that a process of somebody else holds open."""
    shared = {path for path in paths if path.startswith("/dev/shm/")}
    foreign: set[str] = set()
    if shared:
        family = _processes() | {os.getpid()}
        for process in psutil.process_iter():
            if process.pid not in family:
                foreign.update(_mapped(process.pid))
    return sorted(paths - (shared & foreign))


def _mapped(pid: int) -> set[str]:
    try:
        with open(f"/proc/{pid}/maps") as file:
            return {line.split(maxsplit=5)[-1].strip() for line in file}
    except OSError:  # it ended, or belongs to another user
        return set()
