"""Asks a target again and again, in a thread of its own, and keeps what it says.

A program whose event loop stands still does not answer; that is worth seeing too, so
whoever shows things never waits for an answer here.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from offloop import machine
from offloop.control import Line
from offloop.errors import StartError
from offloop.top import targets
from offloop.top.sight import Sight, picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from offloop.top.targets import Target

# Seconds between a rate's two looks.
_WINDOW = 1.0

# Events that are kept, and seconds of throughput.
_EVENTS = 100
_HISTORY = 120


class Watcher:
    """Watches one target until `close`.

    Args:
        target: it.
        interval: seconds between two looks.
    """

    def __init__(self, target: Target, interval: float) -> None:
        self.target = target
        self.interval = interval
        self._lines: dict[Path, Line] = {}
        self._events: list[dict[str, Any]] = []
        self._sights: list[Sight] = []
        #: what is to be shown; None until something was seen
        self.picture: dict[str, Any] | None = None
        #: jobs a second, one for each look, oldest first
        self.rates: list[float] = []
        #: when the question was asked that has no answer yet; None if all have
        self.asked_at: float | None = None
        #: why nothing more will come; "" while something may
        self.ended = ""
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self, changed: Callable[[], object]) -> None:
        """Look from now on; `changed` is called, in the thread, after each look."""
        self._thread = threading.Thread(
            target=self._run, args=(changed,), name="offloop-top", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closing = True
        self._wake.set()
        if self._thread is None:
            self._hang_up()

    def _run(self, changed: Callable[[], object]) -> None:
        while not self._closing and not self.ended:
            began = time.monotonic()
            self.look()
            changed()
            self._wake.wait(max(began + self.interval - time.monotonic(), 0.05))
        self._hang_up()

    def _hang_up(self) -> None:
        for line in self._lines.values():
            line.close()
        self._lines.clear()

    def look(self) -> None:
        """Look once, and make the picture of it."""
        self.asked_at = time.monotonic()
        serve = pool = None
        if self.target.serve is not None:
            serve = self._ask(self.target.serve, "status")
        if self.target.pool is not None:
            known = self._events[-1]["number"] if self._events else 0
            pool = self._ask(self.target.pool, "look", since=known)
            if pool is not None:
                self._events = [*self._events, *pool["events"]][-_EVENTS:]
                pool["events"] = self._events
        self.asked_at = None
        if serve is None and pool is None:
            self.ended = f"{self.target.program} (pid {self.target.pid}) has ended"
            return
        if pool is None:
            self._find_pool_again()
        self._note(Sight(time.monotonic(), pool, serve, *self._usage(pool, serve)))

    def _note(self, sight: Sight) -> None:
        self._sights.append(sight)
        while len(self._sights) > 2 and sight.at - self._sights[1].at >= _WINDOW:
            del self._sights[0]
        before = self._sights[0] if len(self._sights) > 1 else None
        self.picture = picture(before, sight)
        if self.picture["pool"] and self.picture["pool"]["rate"] is not None:
            self.rates = [*self.rates, self.picture["pool"]["rate"]][-_HISTORY:]

    def _find_pool_again(self) -> None:
        """A cluster's coordinator may have a successor."""
        if self.target.serve is not None:
            for one in targets.find():
                if one.serve == self.target.serve:
                    self.target = one
                    self._events = []

    def _ask(self, path: Path, command: str, **details: Any) -> dict[str, Any] | None:
        """Ask over a line that stays; None if nobody is there any more."""
        try:
            line = self._lines.get(path)
            if line is None:
                line = self._lines[path] = Line(path, None)
            told = line.ask(command, **details)
        except (OSError, ValueError, StartError):
            if path in self._lines:
                self._lines.pop(path).close()
            return None
        return told if told["ok"] else None

    def _usage(
        self, pool: dict[str, Any] | None, serve: dict[str, Any] | None
    ) -> tuple[dict[int, float], dict[int, int]]:
        """Return processor time and memory of all processes that run here."""
        pids: list[int] = []
        if pool is not None and self._is_here(self.target.pool, pool["pid"]):
            pids += [pool["pid"], *(one["pid"] for one in pool["workers"])]
        if serve is not None and self._is_here(self.target.serve, serve["pid"]):
            pids += [one["pid"] for one in serve["servers"]]
        own = [pid for pid in pids if pid]
        cpu = {pid: machine.cpu_seconds(pid) for pid in own}
        return cpu, {pid: machine.resident(pid) for pid in own}

    def _is_here(self, path: Path | None, pid: int) -> bool:
        """Tell whether process numbers of the other end mean the same here."""
        line = self._lines.get(path) if path is not None else None
        return line is not None and line.pid == pid


def order(path: Path, command: str, **details: Any) -> dict[str, Any]:
    """Have something done, however long it takes; returns the answer."""
    try:
        with Line(path) as line:
            return line.ask(command, **details)
    except (OSError, StartError) as error:
        return {"ok": False, "error": str(error)}
