"""Coordinators in processes of their own, that tests may kill."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parent


def environment(**more: str) -> dict[str, str]:
    """Return variables with which another process finds the tests' modules."""
    return {**os.environ, "PYTHONPATH": str(TESTS), **more}


def start(*options: str) -> subprocess.Popen[str]:
    """Start ``offloop serve`` and wait until clients can come."""
    process = subprocess.Popen(
        [sys.executable, "-m", "offloop", "serve", *options],
        stdout=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    assert process.stdout is not None
    assert "is ready at" in process.stdout.readline()
    return process


def end(process: subprocess.Popen[str], signum: int = signal.SIGTERM) -> int:
    """End a process and return its exit code."""
    assert process.stdout is not None
    with process.stdout:
        process.send_signal(signum)
        return process.wait(30)


@contextlib.contextmanager
def folder() -> Iterator[str]:
    """Make a runtime directory that goes with everything in it."""
    directory = tempfile.mkdtemp(prefix="c")
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
