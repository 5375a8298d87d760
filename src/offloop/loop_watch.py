"""Watches an event loop, and names what blocks it.

    the loop    beat ── beat ── beat ──────── (blocked) ──────── beat ─▶ report
    a thread          sleeps, as beats come      └─ late: where is it? again, again

The loop beats: a timer that notes how late it came. A thread of its own wakes when a
beat is overdue by the threshold, and then looks every few milliseconds where the loop's
thread is, until the beat has come. So a loop that is on time pays for a timer and
nothing else, and one that is not is caught in the act. Whoever blocked it is found in
what was seen most often.

It changes nothing, and cannot end what blocks. The thread judges and logs, as both
read and write files; listeners and `on_blocked` are called by the loop afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import sysconfig
import threading
import traceback
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from offloop.errors import UsageError
from offloop.lifecycle import open_pools
from offloop.loop_end import at_loop_end
from offloop.options import seconds
from offloop.telemetry import events
from offloop.telemetry.durations import Durations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType, TracebackType
    from typing import Self

    from offloop.options import Seconds

__all__ = ["Blocked", "LoopWatch", "watch_loop", "watches"]

_log = logging.getLogger("offloop")

# Seconds between two beats, and between two looks at a loop that is blocked; of the
# looks there are so many at most, or a loop that never returns would fill the memory.
_BEAT = 0.05
_LOOK = 0.005
_MOST_LOOKS = 400

# Frames that a report shows.
_DEPTH = 20

# What belongs to nobody's program: the standard library, what is installed, and this.
_NOT_YOURS = tuple(
    f"{Path(path)}/"
    for path in (
        *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")),
        str(Path(__file__).parent),
    )
)


@dataclass(frozen=True, slots=True)
class Blocked:
    """What held the loop.

    Attributes:
        seconds: for which it stood still, at least.
        where: the line of your program that was running: "app.py:12 in resize".
        callback: what the loop had called: the name of a function or coroutine.
        task: name of its task; "" if it was a plain callback.
        share: of the looks that found this line; far below 1 if many things followed
            one another.
        stack: the frames, the latest call last, as a traceback shows them.
    """

    seconds: float
    where: str
    callback: str
    task: str
    share: float
    stack: str

    def __str__(self) -> str:
        who = f"{self.callback} (task {self.task!r})" if self.task else self.callback
        return (
            f"the event loop was held for {1000 * self.seconds:.0f} ms by {who}, at "
            f"{self.where}: consider @offload for what takes long, or await what waits"
        )


class LoopWatch:
    """One watch over the running loop; ends with it, or by `stop`.

    Attributes:
        lag: how late the loop was, at each of its beats: twenty a second.
        blocked: how often it was held for longer than the threshold.
    """

    def __init__(
        self, threshold: float, on_blocked: Callable[[Blocked], object] | None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._threshold = threshold
        self._on_blocked = on_blocked
        self.lag = Durations()
        self.blocked = 0
        #: when the next beat should come
        self._due = monotonic() + _BEAT
        self._sampler = _Sampler(self._loop, threshold, self._due, self._tell)
        self._timer = self._loop.call_later(_BEAT, self._beat)
        self._keeper = at_loop_end(self._end)
        _watches.append(self)
        self._sampler.start()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that is watched."""
        return self._loop

    def stop(self) -> None:
        """Watch no more; harmless when it has ended, and takes no time."""
        if self in _watches:
            _watches.remove(self)
            self._timer.cancel()
            self._sampler.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    async def _end(self) -> None:
        self.stop()
        self._sampler.join()

    def _beat(self) -> None:
        now = monotonic()
        late = now - self._due
        self.lag.add(late)
        self._due = now + _BEAT
        self._timer = self._loop.call_later(_BEAT, self._beat)
        self._sampler.beat_came(late, self._due)

    def _tell(self, blocked: Blocked) -> None:
        self.blocked += 1
        details = {"seconds": blocked.seconds, "where": blocked.where}
        details |= {"callback": blocked.callback, "task": blocked.task}
        for pool in open_pools():
            pool._listeners.tell(events.LoopBlocked, **details, stack=blocked.stack)
        if self._on_blocked is not None:
            try:
                self._on_blocked(blocked)
            except Exception:
                _log.exception("a callback of watch_loop failed with %s", blocked)


class _Look:
    """What the loop's thread was doing at one moment."""

    __slots__ = ("frames", "task", "yours")

    def __init__(self, frames: list[tuple[CodeType, int]], task: str) -> None:
        #: code and line of each frame that the loop has called, innermost first
        self.frames = frames
        self.task = task
        #: the innermost of the program itself
        self.yours = _yours(frames)


class _Sampler(threading.Thread):
    """The thread that looks at the one that makes it.

    Args:
        loop: that runs there.
        threshold: seconds by which a beat may be late.
        due: when the first one should come.
        tell: called by the loop with what has held it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threshold: float,
        due: float,
        tell: Callable[[Blocked], None],
    ) -> None:
        super().__init__(name="offloop-loop-watch", daemon=True)
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._threshold = threshold
        self._due = due
        self._tell = tell
        self._wake = threading.Event()
        self._stopping = False
        #: looks since the beat is overdue
        self._seen: list[_Look] = []
        #: beats that were late, with what was seen meanwhile; not judged yet
        self._late: deque[tuple[float, list[_Look]]] = deque()

    # Called by the loop

    def beat_came(self, late: float, due: float) -> None:
        """Note that a beat has come, and when the next one should."""
        self._due = due
        if late >= self._threshold:
            seen, self._seen = self._seen, []
            self._late.append((late, seen))
            self._wake.set()
        elif self._seen:
            self._seen = []

    def stop(self) -> None:
        """Judge what is left, and end."""
        self._stopping = True
        self._wake.set()

    # The thread's own

    def run(self) -> None:
        """Look when a beat is overdue."""
        wake = self._wake
        while not self._stopping:
            overdue = monotonic() - self._due - self._threshold
            if overdue < 0:
                wake.wait(-overdue)
            else:
                self._look()
                wake.wait(_LOOK)
            if wake.is_set():
                wake.clear()
                self._judge()
        self._judge()

    def _look(self) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        if frame is not None and len(self._seen) < _MOST_LOOKS:
            frames = _called_by_loop(list(_frames_from(frame)))
            if frames:  # else the beat has just come
                self._seen.append(_Look(frames, self._task_name()))

    def _task_name(self) -> str:
        with contextlib.suppress(Exception):  # the loop goes on meanwhile
            task = asyncio.current_task(self._loop)
            if task is not None:
                return task.get_name()
        return ""

    def _judge(self) -> None:
        """Log what has held the loop, and let it tell the others."""
        while self._late:
            blocked = _judged(*self._late.popleft())
            _log.warning(
                "%s\n%s", blocked, blocked.stack, extra={"offloop_blocked": blocked}
            )
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._tell, blocked)


def watch_loop(
    threshold: Seconds = 0.1,
    *,
    on_blocked: Callable[[Blocked], object] | None = None,
) -> LoopWatch:
    """Watch the running event loop, and name what blocks it.

    A callback or coroutine that holds the loop for longer than the threshold is told
    of: as a warning of the logger `offloop` with its line and its stack, as the event
    `LoopBlocked` of the pools of this loop, and in `metrics_app`. It may stay on in
    production.

    Args:
        threshold: seconds by which the loop may be late.
        on_blocked: called with each `Blocked`, on the loop, when it goes on.

    Returns:
        The watch, which ends with the loop, by its `stop`, or as a context manager.

    Raises:
        UsageError: no loop is running here.
    """
    limit = seconds("threshold", threshold)
    if asyncio._get_running_loop() is None:
        raise UsageError(
            "watch_loop() was called where no event loop runs: call it in a coroutine"
        )
    return LoopWatch(limit, on_blocked)


#: those that have not ended, in this process
_watches: list[LoopWatch] = []


def watches() -> list[LoopWatch]:
    """Return all watches of this process that have not ended."""
    return list(_watches)


def _frames_from(frame: FrameType | None) -> Iterator[tuple[CodeType, int]]:
    while frame is not None:
        yield frame.f_code, frame.f_lineno or 0
        frame = frame.f_back


# What runs a loop; uvloop does so without frames of its own.
_loop_type: Any = asyncio.BaseEventLoop
_DRIVERS = frozenset(
    one.__code__
    for one in (
        asyncio.Handle._run,
        _loop_type._run_once,
        _loop_type.run_forever,
        _loop_type.run_until_complete,
        asyncio.Runner.run,
        asyncio.run,
    )
)


def _called_by_loop(
    frames: list[tuple[CodeType, int]],
) -> list[tuple[CodeType, int]]:
    """Return the frames above those that run the loop, innermost first."""
    found: list[tuple[CodeType, int]] = []
    for code, line in frames:
        if code in _DRIVERS:
            break
        found.append((code, line))
    return found


def _yours(frames: list[tuple[CodeType, int]]) -> tuple[CodeType, int]:
    """Return the innermost frame of the program itself, or the innermost of all."""
    for code, line in frames:
        if not code.co_filename.startswith((*_NOT_YOURS, "<")):
            return code, line
    return frames[0]


def _judged(late: float, seen: list[_Look]) -> Blocked:
    """Return what held the loop, of what was seen: the line that was there most."""
    if not seen:
        unseen = "something that was not seen", "", 0.0, ""
        return Blocked(late, "a line that is not known", *unseen)
    counts = Counter(look.yours for look in seen)
    yours, times = counts.most_common(1)[0]
    look = next(one for one in seen if one.yours == yours)
    code, line = yours
    return Blocked(
        seconds=late,
        where=f"{Path(code.co_filename).name}:{line} in {code.co_qualname}",
        callback=look.frames[-1][0].co_qualname,
        task=look.task,
        share=times / len(seen),
        stack=_stack(look.frames),
    )


def _stack(frames: list[tuple[CodeType, int]]) -> str:
    shown = [
        traceback.FrameSummary(code.co_filename, line, code.co_name)
        for code, line in reversed(frames[:_DEPTH])
    ]
    return "".join(traceback.format_list(shown))
