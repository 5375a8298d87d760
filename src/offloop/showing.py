"""How far long work is, for people who look at a terminal: `progress`.

    map, stream ──▶ progress ──▶ the same items    jobs ──▶ progress ──▶ those that end
                       │
                       ▼ ten times a second at most
               rich ── tqdm ── a line of text ── nothing: nobody is looking

It shows and changes nothing: items, errors and cancellations pass through. Counting an
item costs a tenth of a microsecond; what is slow to load is loaded in a thread.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from contextlib import aclosing
from importlib.util import find_spec
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, Protocol, TextIO, TypeVar, overload

from offloop.engines.base import Job
from offloop.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterable,
        Callable,
        Collection,
        Coroutine,
    )

__all__ = ["progress"]

T = TypeVar("T")
Bar = Literal["rich", "tqdm", "plain", "off"]

# Seconds between two pictures on a terminal, and between two lines in a log.
_PAUSE = 0.1
_LOG_PAUSE = 10.0

# Columns of the bar itself.
_BAR = 20


@overload
def progress(
    source: Job[T],
    total: float | None = ...,
    *,
    description: str = ...,
    bar: Bar | object | None = ...,
    file: TextIO | None = ...,
) -> Coroutine[Any, Any, T]: ...
@overload
def progress(
    source: AsyncIterable[T],
    total: float | None = ...,
    *,
    description: str = ...,
    bar: Bar | object | None = ...,
    file: TextIO | None = ...,
) -> AsyncGenerator[T]: ...
@overload
def progress(
    source: Collection[Job[T]],
    total: float | None = ...,
    *,
    description: str = ...,
    bar: Bar | object | None = ...,
    file: TextIO | None = ...,
) -> AsyncGenerator[Job[T]]: ...
def progress(
    source: Any,
    total: float | None = None,
    *,
    description: str = "",
    bar: Bar | object | None = None,
    file: TextIO | None = None,
) -> Any:
    """Show on the terminal how far something is, while you work with its results.

    Args:
        source: what `map` or `stream` gave, or another asynchronous iterable; several
            jobs; or one job, whose reports are shown.
        total: how many items there will be; None: nobody knows, or for a job and a
            stream, what they report.
        description: for people.
        bar: a `tqdm` bar or a `rich.progress.Progress` of yours, which stays open; the
            name of the kind to use; "off" for none; None: rich or tqdm, if installed,
            or else a line of text, and nothing where no terminal is.
        file: where to; None: stderr.

    Returns:
        For an asynchronous iterable, an iterator of the same items. For jobs, an
        iterator of them in the order in which they end. For one job, a coroutine of its
        result, so: ``await progress(job)``. Leaving or cancelling it does the same to
        what is shown, but jobs of a list go on.

    Raises:
        UsageError: `bar` is nothing that can show it.
        TypeError: `source` is nothing that can be shown.

    Example:
        async for result in progress(pool.map(fn, items), total=len(items)):
            ...
    """
    picture = _picture(bar, description, file or sys.stderr)
    if isinstance(source, Job):
        return _show_job(source, total, picture)
    if hasattr(source, "__aiter__"):
        return _show_items(source, total, picture)
    return _show_jobs(list(source), total, picture)


async def _show_items(
    source: Any, total: float | None, picture: _Picture
) -> AsyncGenerator[Any]:
    due, done = 0.0, 0
    iterator = aiter(source)
    try:
        await picture.open(total)
        async for item in iterator:
            yield item
            done += 1
            now = monotonic()
            if now >= due:
                due = now + _PAUSE
                picture.show(*_reported(source, done, total))
    finally:
        picture.close(*_reported(source, done, total))
        close = getattr(iterator, "aclose", None)
        if close is not None:
            await close()


def _reported(
    source: Any, done: float, total: float | None
) -> tuple[float, float | None, str]:
    """Return how far it is; a stream's own word goes first where no total is given."""
    job = getattr(source, "job", None)
    if isinstance(job, Job) and job.progress is not None:
        if total is None:
            return job.progress
        return done, total, job.progress.message
    return done, total, ""


async def _show_job(job: Job[Any], total: float | None, picture: _Picture) -> Any:
    last: tuple[float, float | None, str] = (0.0, total, "")
    due = 0.0
    try:
        await picture.open(total)
        async with aclosing(job.updates()) as updates:
            async for update in updates:
                last = update.done, update.total or total, update.message
                now = monotonic()
                if now >= due:
                    due = now + _PAUSE
                    picture.show(*last)
        return await job
    except asyncio.CancelledError:
        job.cancel()  # as if it had been awaited all the time
        raise
    finally:
        picture.close(*last)


async def _show_jobs(
    jobs: list[Job[Any]], total: float | None, picture: _Picture
) -> AsyncGenerator[Job[Any]]:
    if not all(isinstance(job, asyncio.Future) for job in jobs):
        raise TypeError("progress shows an asynchronous iterable, jobs, or one job")
    ended: asyncio.Queue[Any] = asyncio.Queue()
    for job in jobs:
        job.add_done_callback(ended.put_nowait)
    done = 0
    total = len(jobs) if total is None else total
    due = 0.0
    try:
        await picture.open(total)
        while done < len(jobs):
            job = await ended.get()
            done += 1
            now = monotonic()
            if now >= due:
                due = now + _PAUSE
                picture.show(done, total, "")
            yield job
    finally:
        picture.close(done, total, "")
        for job in jobs:
            job.remove_done_callback(ended.put_nowait)


# What can be seen


class _Picture(Protocol):
    """Something that shows how far it is."""

    async def open(self, total: float | None) -> None:
        """Begin, when the work does."""

    def show(self, done: float, total: float | None, message: str) -> None:
        """Show it now."""

    def close(self, done: float, total: float | None, message: str) -> None:
        """Show it for the last time."""


def _picture(bar: Any, description: str, file: TextIO) -> _Picture:
    if bar is None:
        bar = _best() if file.isatty() else "off"
    if isinstance(bar, str):
        return _named_picture(bar, description, file)
    if hasattr(bar, "add_task"):
        return _Rich(bar, description, _without_markup())
    if hasattr(bar, "update") and hasattr(bar, "n"):
        return _Tqdm(bar, description)
    raise _no_bar(bar)


def _named_picture(name: str, description: str, file: TextIO) -> _Picture:
    if name == "off":
        return _Nothing()
    if name == "plain":
        return _Line(description, file)
    if name not in _LIBRARIES:
        raise _no_bar(name)
    if find_spec(name) is None:
        raise UsageError(f'bar="{name}" needs the package {name}: pip install {name}')
    return _Library(name, description, file)


def _no_bar(bar: object) -> UsageError:
    return UsageError(
        "bar takes a tqdm bar, a rich.progress.Progress, or one of rich, tqdm, plain "
        f"and off, not {bar!r}"
    )


def _best() -> str:
    return next((name for name in _LIBRARIES if find_spec(name)), "plain")


class _Nothing:
    """Shows nothing: nobody is looking."""

    async def open(self, total: float | None) -> None:
        """Do nothing."""

    def show(self, done: float, total: float | None, message: str) -> None:
        """Do nothing."""

    def close(self, done: float, total: float | None, message: str) -> None:
        """Do nothing."""


class _Line:
    """A line of text that is written over, or in a log one after the other."""

    def __init__(self, description: str, file: TextIO) -> None:
        self._description = description
        self._file = file
        self._terminal = file.isatty()
        self._began = monotonic()
        #: when the next line of a log is due
        self._due = self._began + _LOG_PAUSE

    async def open(self, total: float | None) -> None:
        self._began = monotonic()
        self._due = self._began + _LOG_PAUSE
        if self._terminal:
            self.show(0, total, "")

    def show(self, done: float, total: float | None, message: str) -> None:
        now = monotonic()
        text = _text(self._description, done, total, message, now - self._began)
        if self._terminal:
            columns = shutil.get_terminal_size().columns
            self._file.write(f"\r\x1b[K{text[: columns - 1]}")
            self._file.flush()
        elif now >= self._due:
            self._due = now + _LOG_PAUSE
            self._file.write(f"{text}\n")
            self._file.flush()

    def close(self, done: float, total: float | None, message: str) -> None:
        self._due = 0.0
        self.show(done, total, message)
        if self._terminal:
            self._file.write("\n")
            self._file.flush()


class _Library:
    """A bar of rich or tqdm that is made when the work begins."""

    def __init__(self, name: str, description: str, file: TextIO) -> None:
        self._name = name
        self._description = description
        self._file = file
        self._bar: _Rich | _Tqdm | None = None
        self._end: Callable[[], object] = lambda: None

    async def open(self, total: float | None) -> None:
        make = _LIBRARIES[self._name]
        # Importing them takes up to a tenth of a second: not on the event loop.
        bar, self._end = await asyncio.to_thread(make, self._file, total)
        kind = _Rich if self._name == "rich" else _Tqdm
        self._bar = kind(bar, self._description)
        await self._bar.open(total)

    def show(self, done: float, total: float | None, message: str) -> None:
        if self._bar is not None:
            self._bar.show(done, total, message)

    def close(self, done: float, total: float | None, message: str) -> None:
        if self._bar is not None:  # else it was cancelled before
            self._bar.close(done, total, message)
            self._end()


class _Tqdm:
    """A bar of tqdm; others may move it as well."""

    def __init__(self, bar: Any, description: str) -> None:
        self._bar = bar
        self._description = description
        self._done: float = 0

    async def open(self, total: float | None) -> None:
        if self._description:
            self._bar.set_description_str(self._description, refresh=False)
        self.show(0, total, "")

    def show(self, done: float, total: float | None, message: str) -> None:
        bar = self._bar
        if total is not None and bar.total != total:
            bar.total = total
        if message:
            bar.set_postfix_str(message, refresh=False)
        bar.update(done - self._done)
        self._done = done

    def close(self, done: float, total: float | None, message: str) -> None:
        self.show(done, total, message)
        self._bar.refresh()


class _Rich:
    """A task in a display of rich, which may show others as well.

    Args:
        bar: the display.
        description: of the task.
        plainly: makes of what a job says, which may have brackets, what is shown so.
    """

    def __init__(
        self, bar: Any, description: str, plainly: Callable[[str], str] = str
    ) -> None:
        self._bar = bar
        self._description = description
        self._plainly = plainly
        self._task: Any = None

    async def open(self, total: float | None) -> None:
        self._task = self._bar.add_task(self._description, total=total)

    def show(self, done: float, total: float | None, message: str) -> None:
        described = f"{self._description} {self._plainly(message)}".strip()
        more = {} if total is None else {"total": total}
        self._bar.update(self._task, completed=done, description=described, **more)

    def close(self, done: float, total: float | None, message: str) -> None:
        if self._task is not None:
            self.show(done, total, message)


def _without_markup() -> Callable[[str], str]:
    """Return what keeps the columns that rich has by default from reading markup."""
    from rich.markup import escape

    return escape


def _make_tqdm(file: TextIO, total: float | None) -> tuple[Any, Callable[[], object]]:
    from tqdm import tqdm

    class Unwatched(tqdm):  # type: ignore[misc]  # it has no types
        # Or else a thread stays that looks after bars which are not moved.
        monitor_interval = 0

    bar = Unwatched(total=total, file=file, mininterval=0.0, dynamic_ncols=True)
    return bar, bar.close


def _make_rich(file: TextIO, total: float | None) -> tuple[Any, Callable[[], object]]:
    from rich import progress as columns
    from rich.console import Console

    bar = columns.Progress(
        columns.TextColumn("{task.description}", markup=False),
        columns.BarColumn(),
        columns.MofNCompleteColumn(),
        columns.TimeElapsedColumn(),
        columns.TimeRemainingColumn(),
        console=Console(file=file),
    )
    bar.start()
    return bar, bar.stop


_LIBRARIES = {"rich": _make_rich, "tqdm": _make_tqdm}


def _text(
    description: str, done: float, total: float | None, message: str, seconds: float
) -> str:
    """Return one line, such as ``read  50% ##########     5/10  2/s  0:02<0:02``."""
    parts = [description] if description else []
    rate = done / seconds if seconds > 0 else 0.0
    if total:
        share = min(max(done / total, 0.0), 1.0)
        filled = int(share * _BAR)
        parts.append(f"{share:4.0%} {'#' * filled}{'.' * (_BAR - filled)}")
        parts.append(f"{done:,.10g}/{total:,.10g}")
    else:
        parts.append(f"{done:,.10g}")
    parts.append(f"{rate:,.3g}/s" if rate < 1000 else f"{rate:,.0f}/s")
    clock = _clock(seconds)
    if total and rate:
        clock += f"<{_clock(max(total - done, 0.0) / rate)}"
    parts.append(clock)
    if message:
        parts.append(" ".join(message.split()))
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
