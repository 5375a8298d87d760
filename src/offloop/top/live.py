"""What keys do: one screen, one target at a time, until somebody has seen enough.

Orders that take a while, such as a reload, run in a thread; what came of them is said
in the last line. What cannot be undone is asked for once more.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from offloop.top import drawing, sight
from offloop.top.drawing import View
from offloop.top.watcher import Watcher, order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from offloop.top.targets import Target
    from offloop.top.terminal import Terminal

# Seconds for which the last line says something, and between two pictures.
_SAID = 5.0
_PAUSE = 0.5


class Live:
    """Shows targets on a terminal, and does what keys say.

    Args:
        terminal: entered already.
        targets: that one may go to, at least one.
        interval: seconds between two looks.
        order: of functions at first.
    """

    def __init__(
        self,
        terminal: Terminal,
        targets: Sequence[Target],
        interval: float,
        order: str,
    ) -> None:
        self._terminal = terminal
        self._targets = list(targets)
        self._interval = interval
        self._order = order
        self._watcher = self._watch(self._targets[0])
        #: number of the worker that keys are about
        self._chosen: int | None = None
        self._message = ""
        self._said_at = 0.0
        #: what is done if the answer is yes; None if nothing was asked
        self._doubt: Callable[[], None] | None = None
        #: title and text that cover the screen, and the first line that is seen
        self._page: tuple[str, str] | None = None
        self._first = 0

    def run(self) -> str:
        """Show things until somebody leaves; returns why, "" if he wanted to."""
        try:
            while not self._watcher.ended:
                self._show()
                for key in self._terminal.wait(_PAUSE):
                    if not self._press(key):
                        return ""
            return self._watcher.ended
        finally:
            self._watcher.close()

    def _watch(self, target: Target) -> Watcher:
        watcher = Watcher(target, self._interval)
        watcher.start(self._terminal.wake)
        return watcher

    def _show(self) -> None:
        width, height = self._terminal.size
        if self._page is not None:
            title, text = self._page
            self._terminal.show(drawing.page(title, text, self._first, width, height))
            return
        now = time.monotonic()
        if self._doubt is None and now - self._said_at > _SAID:
            self._message = ""
        asked = self._watcher.asked_at
        view = View(
            self._watcher.picture,
            self._watcher.rates,
            self._order,
            self._chosen,
            self._message,
            now - asked if asked is not None else 0.0,
            len(self._targets) > 1,
            time.time(),
        )
        self._terminal.show(drawing.draw(view, width, height))

    def _say(self, text: str) -> None:
        self._message, self._said_at = text.partition("\n")[0], time.monotonic()

    # Keys

    def _press(self, key: str) -> bool:
        """Do what a key says; False to leave."""
        if self._page is not None:
            self._turn(key)
        elif self._doubt is not None:
            doubt, self._doubt, self._message = self._doubt, None, ""
            if key in ("y", "Y"):
                doubt()
        elif key in ("q", "Q", "escape"):
            return False
        else:
            act = _ACTIONS.get(key)
            if act is not None:
                act(self)
        return True

    def _turn(self, key: str) -> None:
        assert self._page is not None
        step = {"up": -1, "down": 1, "page up": -15, "page down": 15}.get(key)
        if step is None:
            self._page = None
        else:
            last = max(len(self._page[1].splitlines()) - 5, 0)
            self._first = min(max(self._first + step, 0), last)

    def _workers(self) -> list[dict[str, Any]]:
        picture = self._watcher.picture
        pool = picture["pool"] if picture else None
        workers: list[dict[str, Any]] = pool["workers"] if pool else []
        return workers

    def _choose(self, step: int) -> None:
        numbers = [one["worker"] for one in self._workers()]
        if numbers:
            at = numbers.index(self._chosen) + step if self._chosen in numbers else 0
            self._chosen = numbers[min(max(at, 0), len(numbers) - 1)]

    def up(self) -> None:
        """Choose the worker above."""
        self._choose(-1)

    def down(self) -> None:
        """Choose the worker below."""
        self._choose(1)

    def sort(self) -> None:
        """Order functions by something else."""
        at = sight.ORDERS.index(self._order) + 1
        self._order = sight.ORDERS[at % len(sight.ORDERS)]

    def next_target(self) -> None:
        """Go to another target."""
        if len(self._targets) > 1:
            self._watcher.close()
            self._targets.append(self._targets.pop(0))
            self._chosen = None
            self._watcher = self._watch(self._targets[0])

    def dump(self) -> None:
        """Show what the chosen worker is doing, or all of them."""

        def told(answer: dict[str, Any]) -> None:
            text = "\n".join(one["text"] for one in answer["workers"])
            self._page, self._first = ("what workers are doing now", text), 0

        details = {} if self._chosen is None else {"worker": self._chosen}
        self._order_of_pool("dump", told, **details)

    def kill(self) -> None:
        """Kill the chosen worker, if that is meant."""
        pids = {one["worker"]: one["pid"] for one in self._workers()}
        number = self._chosen
        if number not in pids:
            self._say("choose a worker first, by ↑ and ↓")
            return
        pid = pids[number]

        def told(answer: dict[str, Any]) -> None:
            self._say(f"killed process {pid}")

        self._ask(
            f"kill worker {number} (pid {pid})? Its job is lost",
            lambda: self._order_of_pool("kill", told, worker=number),
        )

    def reload(self) -> None:
        """Replace all workers, and servers, by such with new code."""
        self._say("reloading ...")

        def told(answer: dict[str, Any]) -> None:
            self._say(f"reloaded within {answer['seconds']:.1f} s")

        self._order_of_all("reload", told)

    def drain(self) -> None:
        """Take nothing new, if that is meant."""
        self._ask(
            "drain? It takes nothing new from then on",
            lambda: self._order_of_all("drain", lambda _: self._say("drained")),
        )

    def more(self) -> None:
        """Have one worker more."""
        self._scale(1)

    def fewer(self) -> None:
        """Have one worker less."""
        self._scale(-1)

    def _scale(self, change: int) -> None:
        picture = self._watcher.picture
        if picture and picture["pool"]:
            wanted = max(picture["pool"]["wanted"] + change, 1)
            self._say(f"{wanted} workers are wanted")
            self._order_of_pool(
                "scale",
                lambda answer: self._say(f"{answer['workers']} workers"),
                workers=wanted,
            )

    # Orders

    def _ask(self, question: str, doubt: Callable[[], None]) -> None:
        self._message = f"{question}: y or n?"
        self._doubt = doubt

    def _order_of_pool(
        self, command: str, told: Callable[[dict[str, Any]], None], **details: Any
    ) -> None:
        self._send(self._watcher.target.pool, command, told, details)

    def _order_of_all(
        self, command: str, told: Callable[[dict[str, Any]], None]
    ) -> None:
        target = self._watcher.target
        self._send(target.serve or target.pool, command, told, {})

    def _send(
        self,
        path: Any,
        command: str,
        told: Callable[[dict[str, Any]], None],
        details: dict[str, Any],
    ) -> None:
        if path is None:
            self._say("there is no pool now")
            return

        def run() -> None:
            answer = order(path, command, **details)
            if answer["ok"]:
                told(answer)
            else:
                self._say(f"{command}: {answer['error']}")
            self._terminal.wake()

        threading.Thread(target=run, name="offloop-top-order", daemon=True).start()


_ACTIONS: dict[str, Callable[[Live], None]] = {
    "up": Live.up,
    "down": Live.down,
    "s": Live.sort,
    "tab": Live.next_target,
    "d": Live.dump,
    "k": Live.kill,
    "r": Live.reload,
    "D": Live.drain,
    "+": Live.more,
    "=": Live.more,
    "-": Live.fewer,
}
