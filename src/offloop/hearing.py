"""Asks one worker where it is, and hears it out.

    ask ──DUMP_SIGNAL──▶ faulthandler, in the worker, writes behind its status page
     ▲                                      │
     └───── look, and look again ◀──────────┘       then(text), for all who have asked

faulthandler writes from the signal handler itself, in C: it needs neither the
interpreter's lock nor the cooperation of a job, so an endless loop in C is no obstacle.
A process that somebody has stopped says nothing.

Nobody tells when the text is whole. It is when it ends with the frame that all workers
begin with, or when two looks find the same.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from offloop import messages
from offloop.wire.status import StatusPage

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds until the first look, and by how much longer each pause is than the one
# before; the text is there after a fraction of a millisecond if a core is free.
_FIRST = 0.0005
_LONGER = 1.6
_LONGEST = 0.01

# The outermost frame of a worker, and what stands for frames that are not shown.
_WHOLE = ('File "<string>", line 1 in <module>\n', "  ...\n")

# The frames of a worker that are not its job's, and the one that all jobs have below.
_OURS = '/offloop/worker.py", line '
_JOB = " in _run_job"

# Frames that lead from there to the job's own, of a coroutine those of its loop too.
_LEADING = ("/offloop/running.py", "/offloop/outflow.py", "/offloop/wire/", "/asyncio/")


class Hearing:
    """One worker, asked any number of times; who asks meanwhile gets the same answer.

    Args:
        file: descriptor of its status page; stays the caller's.
        signal: sends it a signal.
    """

    __slots__ = ("_askers", "_file", "_loop", "_pause", "_said", "_signal", "_timer")

    def __init__(self, file: int, signal: Callable[[int], None]) -> None:
        self._file = file
        self._signal = signal
        self._loop = asyncio.get_running_loop()
        #: until when each asker waits, and what gets the text
        self._askers: list[tuple[float, Callable[[str], object]]] = []
        #: the next look; None while nobody asks
        self._timer: asyncio.TimerHandle | None = None
        #: what the last look found
        self._said = ""
        #: seconds until the next one
        self._pause = _FIRST

    def ask(self, then: Callable[[str], object], patience: float) -> None:
        """Ask where the worker is; it must be ready.

        Args:
            then: called once, later, with what it said: the tracebacks of its threads,
                or what there is of them when the patience or the process has ended.
            patience: seconds to wait for it at most.
        """
        self._askers.append((self._loop.time() + patience, then))
        if self._timer is None:
            self._said = ""
            self._pause = _FIRST
            StatusPage.forget_words(self._file)
            self._signal(messages.DUMP_SIGNAL)
        else:
            self._timer.cancel()
        self._look_later()

    def _look_later(self) -> None:
        first = min(until for until, _ in self._askers)
        when = min(self._loop.time() + self._pause, first)
        self._pause = min(self._pause * _LONGER, _LONGEST)
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        said = StatusPage.last_words(self._file)
        if said and (said == self._said or said.endswith(_WHOLE)):
            self._tell(said)
        else:
            self._said = said
            now = self._loop.time()
            late = [asker for asker in self._askers if asker[0] <= now]
            self._askers = [asker for asker in self._askers if asker[0] > now]
            if self._askers:
                self._look_later()
            else:  # what comes now is nobody's
                StatusPage.forget_words(self._file)
            for _, then in late:
                then(said)

    def _tell(self, said: str) -> None:
        askers, self._askers = self._askers, []
        StatusPage.forget_words(self._file)  # so that a crash stands alone
        for _, then in askers:
            then(said)

    def close(self) -> None:
        """Tell those who wait what there is: the process has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._tell(StatusPage.last_words(self._file))


def frames_of_job(said: str) -> str:
    """Return the part of a dump that shows the job: its frames in the main thread.

    Args:
        said: what a worker said; its main thread stands last.

    Returns:
        Frames, the latest call first; "" if no job ran.
    """
    _, _, thread = said.rstrip().rpartition("most recent call first):\n")
    frames: list[str] = []
    for line in thread.splitlines():
        if _OURS not in line:
            frames.append(line)
        elif line.endswith(_JOB):
            while len(frames) > 1 and any(part in frames[-1] for part in _LEADING):
                frames.pop()
            return "\n".join(frames)
    # Deeper than what is shown, or it was not in a job.
    return thread if thread.endswith("...") else ""
