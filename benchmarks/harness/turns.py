"""A fresh process for each measurement, and contenders that take turns.

No contender lives with what another has left behind: threads, warm memory, patched
modules. And what else the machine does meanwhile hits all of them alike, because they
take turns: A B C, A B C.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from harness import node

#: where `peers`, `cases` and the functions that are sent are found, also by workers
ROOT = Path(__file__).parent.parent

#: seconds that the processes of a contender get to end by themselves
PATIENCE = 1.0


class Order(NamedTuple):
    """What a fresh process is to measure.

    Attributes:
        module: of the `measure` function, such as ``cases.round_trip``.
        contender: name of a peer, or of a limit.
        arguments: for `measure`, by name; anything that JSON can hold.
        program: of a peer that measures in another language.
    """

    module: str
    contender: str
    arguments: dict
    program: str | None = None

    def command(self) -> list[str]:
        if self.program:
            case = self.module.rpartition(".")[2]
            return [*node.command(self.program), case, json.dumps(self.arguments)]
        return [sys.executable, "-m", "harness.one", json.dumps(self)]


def alone(order: Order, timeout: float) -> dict:
    """Measure in a fresh process.

    Returns:
        Figures by name, or ``{"cannot": reason}`` when the contender cannot do it, or
        did not in `timeout` seconds.
    """
    try:
        command = order.command()
    except node.Missing as error:
        return {"cannot": str(error)}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        said, errors = process.communicate(timeout=timeout)
        wait_for_group(process.pid)
    except subprocess.TimeoutExpired:
        return {"cannot": f"took more than {timeout:g} s"}
    finally:
        # Some leave processes behind, and all do when they are stopped.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    return understand(said, errors, process.returncode)


def environment() -> dict[str, str]:
    """Return what a measurement finds in its environment: nothing that sways it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OFFLOOP_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


def understand(said: str, errors: str, code: int) -> dict:
    """Return the figures on the last line that has some, or the last words."""
    for line in reversed(said.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    last = (errors.strip() or f"exit code {code}").splitlines()[-1]
    return {"cannot": last[:100]}


def wait_for_group(group: int) -> None:
    """Let the last processes of a contender end: some of them clean up for it."""
    end = time.monotonic() + PATIENCE
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(group, 0)
            time.sleep(0.02)


def take_turns(orders: dict[str, Order], rounds: int, timeout: float) -> dict:
    """Let each contender measure `rounds` times, one after the other.

    Returns:
        Contender and its reports; only one, if that says what it cannot do.
    """
    found: dict[str, list[dict]] = {name: [] for name in orders}
    for _ in range(rounds):
        take_turn(orders, found, timeout)
    return found


def take_turn(orders: dict[str, Order], found: dict, timeout: float) -> None:
    """Let each contender measure once, if it can, and note what it reports."""
    for name, order in orders.items():
        if not found[name] or "cannot" not in found[name][-1]:
            found[name].append(alone(order, timeout))
