"""Who works on what: the view of the workers that the page shows.

The pool hands jobs out; this notes which job went to which worker, and which process
that is, from what the jobs themselves tell.
"""

from __future__ import annotations

from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offloop import Job

__all__ = ["Board"]


class _Entry(NamedTuple):
    job: Job[Any]
    label: str
    since: float


class Board:
    """The jobs that have not ended, and the processes that have worked."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        #: process of each worker that has done a job, by its number
        self._pids: dict[int, int] = {}

    @contextmanager
    def shows(self, job: Job[Any], label: str) -> Iterator[None]:
        """Show a job for as long as somebody waits for it.

        Args:
            job: just submitted.
            label: what it is, for people.
        """
        self._entries[job.id] = _Entry(job, label, monotonic())
        try:
            yield
        finally:
            del self._entries[job.id]

    def learn(self, worker: int | None, pid: int) -> None:
        """Note which process a worker is."""
        if worker is not None:
            self._pids[worker] = pid

    def renew(self, pids: dict[int, int]) -> None:
        """Note which process each worker is; there are no others.

        Args:
            pids: process of each worker, by its number.
        """
        self._pids = pids

    @property
    def known(self) -> int:
        """Number of workers whose process is known."""
        return len(self._pids)

    def forget(self, worker: int | None) -> None:
        """Note that a worker is gone."""
        if worker is not None:
            self._pids.pop(worker, None)

    def workers(self, ready: int) -> list[dict[str, Any]]:
        """Return what is known of each worker, oldest first.

        Args:
            ready: how many there are. Numbers only grow, so beyond that many the oldest
                ones are gone.
        """
        now = monotonic()
        running = {
            entry.job.worker: entry
            for entry in reversed(self._entries.values())
            if entry.job.state == "sent"
        }
        known = sorted({*self._pids, *(n for n in running if n is not None)})
        for gone in known[: max(len(known) - ready, 0)]:
            self.forget(gone)
        return [self._row(number, running, now) for number in known[-ready:] if ready]

    def _row(
        self, number: int, running: dict[int | None, _Entry], now: float
    ) -> dict[str, Any]:
        row: dict[str, Any] = {"worker": number, "pid": self._pids.get(number)}
        entry = running.get(number)
        if entry is not None:
            seconds = now - entry.since - entry.job.timings.queued
            row |= {"job": entry.label, "seconds": round(max(seconds, 0.0), 3)}
        return row

    def pid(self, worker: int) -> int | None:
        """Return the process that a worker is, None if it is not known."""
        return self._pids.get(worker)
