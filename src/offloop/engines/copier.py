"""Long copies and long pickles, in threads, so that the event loop goes on.

    loop ──▶ run(steps) ──▶ [ a, b, c ] ──▶ thread: a step of a, a step of b, ...
      ▲                                              │
      └──────────────── the last step's result ◀─────┘

Work comes as iterators of small steps. They take turns, so a copy of some megabytes
does not wait for one of a gigabyte. The threads start with the first work and end with
the pool.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    #: does a bit of work with each step; its return value is the result
    Steps = Generator[object, None, Any]

# One copies while the other pickles; more of them would only share the memory's speed.
_THREADS = 2


class Copier:
    """Does work in steps, in threads; belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads: list[threading.Thread] = []
        self._work: deque[tuple[Steps, asyncio.Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closing = False

    async def run(self, steps: Steps) -> Any:
        """Take all steps and return the result.

        A cancellation is noticed between two steps; it returns when no thread is busy
        with the work any more.

        Raises:
            Exception: what a step raised.
        """
        if self._closing:  # a worker that ends late: there is nobody left to disturb
            return _finish(steps)
        if len(self._threads) < _THREADS:
            self._start_thread()
        future = self._loop.create_future()
        with self._changed:
            self._work.append((steps, future))
            self._changed.notify()
        return await future

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function that lets others in by itself."""
        return await self.run(_one_step(function, args))

    def close(self) -> None:
        """End the threads; work that was not done is dropped."""
        with self._changed:
            self._closing = True
            self._work.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _start_thread(self) -> None:
        name = f"offloop-copier-{len(self._threads)}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            steps, future = work
            try:
                next(steps)
            except StopIteration as end:
                self._tell(_set_result, future, end.value)
            except BaseException as error:
                self._tell(_set_exception, future, error)
            else:
                self._put_back(steps, future)
            del work, steps, future  # it may be long until the next one comes

    def _next(self) -> tuple[Steps, asyncio.Future[Any]] | None:
        with self._changed:
            while not self._work and not self._closing:
                self._changed.wait()
            return self._work.popleft() if self._work else None

    def _put_back(self, steps: Steps, future: asyncio.Future[Any]) -> None:
        with self._changed:
            if not self._closing and not future.cancelled():
                self._work.append((steps, future))

    def _tell(self, how: Callable[..., None], *what: Any) -> None:
        # A loop that was closed meanwhile has nobody left who waits.
        if not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(how, *what)
            except RuntimeError:
                return


def _one_step(function: Callable[..., Any], args: tuple[Any, ...]) -> Steps:
    return function(*args)
    yield


def _finish(steps: Steps) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _set_result(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
