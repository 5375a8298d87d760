"""What a test leaves behind of offloop: open pools, processes, shared memory.

    Watch() ──▶ the test and its fixtures ──▶ left() ──▶ what stays, described and ended

It looks for what is offloop's alone, so that no test is blamed for what another library
keeps. As long as a pool of a wider scope is open, what that holds cannot be told from
what a test has left; then only pools are looked for.

It imports nothing of offloop: where no pool was ever made, there is nothing to look
for, and a session of tests without offloop pays next to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from offloop.bridge import Bridge
    from offloop.lifecycle import Lifecycle

# Part of the command line of forkservers, and so of the workers that they fork.
_MARK = b"from offloop.forkserver import main"

# What the name of our shared memory begins with, in /proc.
_BLOCKS = "/memfd:offloop-"

_POLL = 0.005


class Watch:
    """Knows what there was before a test; made before its first fixture."""

    def __init__(self) -> None:
        #: pools that are no concern of the test
        self._pools: weakref.WeakSet[Lifecycle] = weakref.WeakSet(_open_pools())
        #: processes of offloop that there were
        self._processes = _processes() if _loaded() else set()
        #: shared memory that there was, by inode
        self._blocks = set(_blocks()) if _loaded() else set()

    @contextlib.contextmanager
    def allowing(self) -> Generator[None]:
        """Excuse pools that are opened meanwhile: they outlive the test on purpose."""
        before = weakref.WeakSet(_open_pools())
        try:
            yield
        finally:
            for pool in _open_pools():
                if pool not in before:
                    self._pools.add(pool)

    def left(self, patience: float = 2.0) -> list[str]:
        """Describe what is there in addition now, and end it.

        Args:
            patience: seconds that what is ending already gets to end.
        """
        if not _loaded():
            return []
        _lifecycle().abandon_those_of_closed_loops()
        if self._is_clean():
            return []
        gc.collect()  # an executor that nobody holds ends; so does a block
        left = []
        for pool in self._new_pools():
            if not _until(partial(_rests, pool), patience):
                left.append(f"{_describe(pool)}, which does not end")
                end(pool)
            elif pool in _open_pools():
                left.append(_describe(pool))
                end(pool)
        if self._others():
            return left
        _until(lambda: not self._new_processes(), patience)
        for pid in self._new_processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if not left:
                left.append(f"process {pid}, of a pool that is gone or closed")
        if not left:
            left += [
                f"shared memory of a pool that is gone or closed ({where}): an array "
                "or buffer that it gave is still held"
                for inode, where in _blocks().items()
                if inode not in self._blocks
            ]
        return left

    def _is_clean(self) -> bool:
        return not self._new_pools() and (
            self._others()
            or (not self._new_processes() and not _blocks().keys() - self._blocks)
        )

    def _new_pools(self) -> list[Lifecycle]:
        """Return pools of the test, without those that live as long as their loop."""
        return [
            pool
            for pool in _open_pools()
            if pool not in self._pools and not pool._ends_with_loop
        ]

    def _others(self) -> bool:
        """Tell whether some pool is open that is no concern of the test."""
        return any(
            pool in self._pools or pool._ends_with_loop for pool in _open_pools()
        )

    def _new_processes(self) -> set[int]:
        return _processes() - self._processes


def end(pool: Lifecycle) -> None:
    """Close a pool from outside of its loop, whatever that does."""
    loop = pool._loop
    if loop is None or loop.is_closed() or pool not in _open_pools():
        return
    running = asyncio._get_running_loop()
    bridge = _bridge_of(pool)
    if bridge is not None:
        bridge.finish(force="kill")
        bridge.join()
    elif not loop.is_running() and running is None:
        loop.run_until_complete(pool.close())
    elif loop is not running and loop.is_running():
        asyncio.run_coroutine_threadsafe(pool.close(), loop).result()
    else:  # whoever called this runs in a loop: it can only be done a little later
        closing = loop.create_task(pool.close())
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)


#: tasks that close a pool
_closing: set[asyncio.Task[None]] = set()


def _loaded() -> bool:
    return "offloop.lifecycle" in sys.modules


def _lifecycle() -> Any:
    return sys.modules["offloop.lifecycle"]


def _open_pools() -> list[Lifecycle]:
    """Return the pools of this process that are open and whose loop is not closed."""
    if not _loaded():
        return []
    return [
        pool
        for pool in _lifecycle().all_open()
        if pool._loop is not None and not pool._loop.is_closed()
    ]


def _bridge_of(pool: Lifecycle) -> Bridge | None:
    """Return what stands between an executor and its pool; None: it is nobody's."""
    module: Any = sys.modules.get("offloop.bridge")
    running: list[Bridge] = [] if module is None else list(module._running)
    return next((bridge for bridge in running if bridge._pool is pool), None)


def _rests(pool: Lifecycle) -> bool:
    """Tell whether a pool is closed, or open and nobody is about to close it."""
    if pool not in _open_pools() or pool._loop is None:
        return True
    bridge = _bridge_of(pool)
    if bridge is not None:
        return bridge._refusal is None
    return pool.is_open or not pool._loop.is_running()


def _describe(pool: Lifecycle) -> str:
    bridge = _bridge_of(pool)
    if bridge is not None:
        return (
            f"executor {bridge.name!r}, which was not shut down: use `with`, or call "
            "its `shutdown`"
        )
    return f"{pool!r}, which was not closed: use `async with`, or await its `close`"


def _until(is_so: Callable[[], bool], patience: float) -> bool:
    """Wait for something, and tell whether it came."""
    deadline = time.monotonic() + patience
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL)
    return True


def _processes() -> set[int]:
    """Return the descendants of this process that are forkservers or workers."""
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        children = _children(waiting.pop()) - found
        found |= children
        waiting.extend(children)
    return {pid for pid in found if _is_ours(pid)}


def _children(pid: int) -> set[int]:
    children: set[int] = set()
    with contextlib.suppress(OSError):  # it has ended, or there is no such directory
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                children.update(map(int, file.read().split()))
    return children


def _is_ours(pid: int) -> bool:
    """Tell whether a process is of offloop; one that has ended has no text."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return _MARK in file.read()
    except OSError:
        return False


def _blocks() -> dict[int, str]:
    """Return the shared memory of pools that this process holds: inode and where."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError), open("/proc/self/maps") as file:
        for line in file:
            if _BLOCKS in line:
                found[int(line.split()[4])] = "mapped"
    with contextlib.suppress(OSError):
        for number in os.listdir("/proc/self/fd"):
            path = f"/proc/self/fd/{number}"
            with contextlib.suppress(OSError):
                if os.readlink(path).startswith(_BLOCKS):
                    found[os.stat(path).st_ino] = f"fd {number}"
    return found
