"""A client's line to the coordinator of a shared pool: found, lost, and found again.

    client ──▶ pool.sock    HELLO, and the file with this client's large arguments
           ◀──              WELCOME, or REFUSED
           ◀═▶              jobs and results

The line is a Unix socket: its end tells at once that the other side has died, and the
files with large results travel on it. The coordinator may die and be replaced; then
the line is made anew, with growing pauses. Nothing here waits, and what is said on the
line is for the engine to understand.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, Protocol

from offloop import messages, runtime
from offloop.errors import PoolLost, StartError
from offloop.wire.lifeline import Lifeline

if TYPE_CHECKING:
    from pathlib import Path

# Pauses between two attempts to find the coordinator, in seconds.
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 0.5

# After so many seconds without a coordinator jobs are refused; it is looked for all
# the same.
_PATIENCE = 10.0

# What both ends must have in common: pickles and functions are of one version.
VERSION = (1, sys.version_info[0], sys.version_info[1])


class Owner(Protocol):
    """What an uplink needs of the engine that it works for."""

    def uplink_made(self, limit: int | None) -> None:
        """Send jobs: there is a coordinator, which takes so many at once."""

    def uplink_heard(self, message: tuple[Any, ...]) -> None:
        """Take a message."""

    def uplink_file(self, worker: int, size: int, descriptor: int) -> None:
        """Keep the file of so many bytes that a worker writes large results to."""

    def uplink_paused(self) -> None:
        """Take what has been heard of until now as a whole."""

    def uplink_lost(self, why: str) -> None:
        """Give up what the coordinator had; it is gone."""

    def uplink_failed(self, error: Exception) -> None:
        """Refuse jobs: no coordinator can be found."""


class Uplink:
    """The line of one client.

    Args:
        owner: is told what happens.
        door: where the coordinator is to be found.
        name: of the client, for people.
        memory: descriptor of the file with large arguments; stays the caller's.
    """

    def __init__(self, owner: Owner, door: Path, name: str, memory: int) -> None:
        self._owner = owner
        self._door = door
        self._name = name
        self._memory = memory
        self._loop = asyncio.get_running_loop()
        #: None while there is no coordinator
        self._line: Lifeline | None = None
        self._welcome = False
        self._retry: asyncio.TimerHandle | None = None
        self._pause = _FIRST_PAUSE
        #: when patience ends, in monotonic seconds; 0.0 while nothing was tried
        self._patient_until = 0.0
        #: there was a coordinator once
        self._ever = False
        self._closed = False
        #: process id of the coordinator, the latest one; 0: there was none yet
        self.pid = 0

    @property
    def is_up(self) -> bool:
        """True while there is a coordinator."""
        return self._welcome

    def open(self) -> None:
        """Look for the coordinator.

        One that was never seen and has no door is not waited for, unless whoever
        started this program said where it will be.
        """
        self._retry = None
        if not self._patient_until:
            self._patient_until = time.monotonic() + _PATIENCE
        line = socket.socket(socket.AF_UNIX)
        line.setblocking(False)
        try:
            trouble = ""
            with contextlib.suppress(FileNotFoundError):
                trouble = runtime.trouble_with(self._door.parent)
            if trouble:
                raise PermissionError(errno.EACCES, trouble)
            line.connect(str(self._door))
        except OSError as error:
            line.close()
            self._not_found(error)
            return
        self._line = Lifeline(line)
        self._loop.add_reader(line.fileno(), self._read)
        hello = (messages.HELLO, VERSION, os.getpid(), self._name)
        self._line.send(hello, self._memory)

    def send(self, message: tuple[Any, ...]) -> None:
        """Send a message, if there is a coordinator."""
        if self._line is not None and self._welcome:
            self._line.send(message)
            if not self._line.flush():
                self._loop.add_writer(self._line.fileno(), self._write)

    def close(self) -> None:
        """End the line, and look for no other one."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        self._hang_up()

    def abandon(self) -> None:
        """End the line when the loop is closed; nobody is told anything."""
        if self._line is not None:
            self._line.close()
        self._line = None

    # Finding

    def _not_found(self, error: OSError) -> None:
        now = time.monotonic()
        waits = self._ever or runtime.DOOR_VARIABLE in os.environ
        if not waits or now >= self._patient_until:
            self._owner.uplink_failed(_nobody(self._door, error, lost=self._ever))
        if waits:
            self._retry = self._loop.call_later(self._pause, self.open)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def _read(self) -> None:
        line = self._line
        if line is None:
            return
        for message in line.receive():
            self._hear(line, message)
        if line.ended and line is self._line:
            self._end("it has ended")
        self._owner.uplink_paused()

    def _hear(self, line: Lifeline, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == messages.MEMORY:
            _, worker, size = message
            self._owner.uplink_file(worker, size, line.take_descriptor())
        elif kind == messages.WELCOME:
            _, limit, self.pid = message
            self._welcome = self._ever = True
            self._pause, self._patient_until = _FIRST_PAUSE, 0.0
            self._owner.uplink_made(limit)
        elif kind == messages.REFUSED:
            self._hang_up()
            self._owner.uplink_failed(
                StartError(f"the shared pool at {self._door} refuses: {message[1]}")
            )
        elif self._welcome:
            self._owner.uplink_heard(message)

    def _write(self) -> None:
        if self._line is not None and self._line.flush():
            self._loop.remove_writer(self._line.fileno())

    def _end(self, why: str) -> None:
        """Take the line for dead; all that came over it was heard."""
        self._hang_up()
        self._patient_until = time.monotonic() + _PATIENCE
        self._owner.uplink_lost(why)
        if not self._closed:
            self._retry = self._loop.call_later(self._pause, self.open)

    def _hang_up(self) -> None:
        if self._line is not None:
            self._loop.remove_reader(self._line.fileno())
            self._loop.remove_writer(self._line.fileno())
            self._line.close()
        self._line = None
        self._welcome = False


def _nobody(door: Path, error: OSError, *, lost: bool) -> Exception:
    """Return the error for a coordinator that cannot be found."""
    what = error.strerror or str(error)
    if lost:
        return PoolLost(
            f"the coordinator of the shared pool is gone, and none has come in its "
            f"place for {_PATIENCE:g} s: nobody answers at {door} ({what}). Jobs are "
            "taken again as soon as one does; `offloop serve` starts one."
        )
    return StartError(
        f"there is no coordinator of a shared pool: nobody answers at {door} ({what}). "
        "Start one with `offloop serve`, or name another one (engine="
        f'"shared://NAME", or {runtime.DOOR_VARIABLE} with the path of its door), or '
        'use engine="local" for a pool of your own.'
    )
