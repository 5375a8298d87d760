"""Jobs that have run out of time, until it is known where they were.

    the scheduler settles ──▶ late ──ask──▶ the worker says where ──▶ the future ends
                                └────────── or PATIENCE is over ──────────▲

The scheduler has settled such a job already: its worker is being interrupted, and its
time is over by a few milliseconds more when the caller hears of it. Nothing is decided
here, and no worker is waited for any longer than that.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from offloop import machine
from offloop.engines.endings import Scene
from offloop.hearing import frames_of_job

if TYPE_CHECKING:
    from collections.abc import Callable

    from offloop.core.job import Ending
    from offloop.engines.call import Call
    from offloop.handles import WorkerHandle

# Seconds that a worker gets to say where it is.
PATIENCE = 0.03


class LateJobs:
    """Ends jobs of workers that were asked where they are.

    Args:
        settle: gives a job its ending, with a `Scene` or None as the detail.
    """

    def __init__(self, settle: Callable[[Call, Ending, Any], None]) -> None:
        self._settle = settle
        #: jobs whose worker is being asked, with their endings
        self._open: dict[Call, Ending] = {}

    @property
    def busy(self) -> bool:
        """True while there is a job that nobody was told the end of."""
        return bool(self._open)

    def ask(self, call: Call, ending: Ending, worker: WorkerHandle) -> None:
        """End a job that its worker runs at this moment, as soon as it says where."""
        self._open[call] = ending
        peak = 0 if worker.pid is None else machine.peak_memory(worker.pid)
        worker.hearing.ask(partial(self._heard, call, worker, peak), PATIENCE)

    def end_all(self) -> None:
        """Wait for nobody any more."""
        while self._open:
            self._settle(*self._open.popitem(), None)

    def _heard(self, call: Call, worker: WorkerHandle, peak: int, said: str) -> None:
        ending = self._open.pop(call, None)
        if ending is None:
            return
        # If another one runs there by now, this one has ended in the moment between.
        its_own = worker.page.running() in (call.id, 0)
        where = frames_of_job(said) if its_own else ""
        output = worker.page.printed()
        scene = Scene(worker.number, worker.pid, peak, where, output)
        self._settle(call, ending, scene)
