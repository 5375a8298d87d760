"""Where tests and jobs wait for each other, without any sleeping: named pipes.

A gate is a FIFO. The job writes to it (`jobs.reach`) or waits at it (`jobs.wait_for`);
the test waits with `await gate.reached()`, and lets the job pass with `gate.open()`.
"""

from __future__ import annotations

import asyncio
import os
import select
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Gate:
    """A FIFO that the test holds open at both ends: no side can block in opening it."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)

    async def reached(self) -> int:
        """Wait until a job has come here; returns its process id."""
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_reader(self._fd, lambda: ready.done() or ready.set_result(None))
        try:
            async with asyncio.timeout(60):
                await ready
        finally:
            loop.remove_reader(self._fd)
        return int(os.read(self._fd, 4096).split()[0])

    def was_reached(self) -> bool:
        """Return whether a job has come here that nobody has waited for."""
        return bool(select.select([self._fd], [], [], 0)[0])

    def open(self, passes: int = 1000) -> None:
        """Let everybody pass who waits here, now or later, or only so many."""
        os.write(self._fd, b"." * passes)

    def close(self) -> None:
        os.close(self._fd)

    def __str__(self) -> str:
        return self.path


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Callable[[], Gate]]:
    """Return what makes gates."""
    gates: list[Gate] = []

    def make() -> Gate:
        gates.append(Gate(tmp_path / f"gate{len(gates)}"))
        return gates[-1]

    yield make
    for one in gates:
        one.close()


class Pipe:
    """A gate for tests without a loop."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._fd = os.open(path, os.O_RDWR)

    def reached(self) -> int:
        """Wait until a job has come here; returns its process id."""
        return int(os.read(self._fd, 4096).split()[0])

    def open(self) -> None:
        """Let everybody pass who waits here, now or later."""
        os.write(self._fd, b"." * 1000)

    def close(self) -> None:
        os.close(self._fd)


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Callable[[], Pipe]]:
    """Return what makes gates for tests without a loop."""
    pipes: list[Pipe] = []

    def make() -> Pipe:
        pipes.append(Pipe(tmp_path / f"pipe{len(pipes)}"))
        return pipes[-1]

    yield make
    for one in pipes:
        one.close()
