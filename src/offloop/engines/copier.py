"""Long copies and long pickles, in threads, so that the event loop goes on.

    loop ──▶ run(steps) ──▶ [ a, b, c ] ──▶ thread: a step of a, a step of b, ...
      ▲                                              │
      └──────────────── the last step's result ◀─────┘

Work comes as iterators of small steps. They take turns, so a copy of some megabytes
does not wait for one of a gigabyte. Work that is cancelled takes no further step; what
it uses stays until the step that is under way has ended. The threads start with the
first work and end with the pool.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from offloop.errors import PoolClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    #: does a bit of work with each step; its return value is the result
    Steps = Generator[object, None, Any]

# One copies while the other pickles; more of them would only share the memory's speed.
_THREADS = 2

_CLOSED = "the pool was closed while something large was on its way"


class Copier:
    """Does work in steps, in threads; belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads: list[threading.Thread] = []
        self._work: deque[tuple[Steps, asyncio.Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        #: done when no thread serves any more
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._serving = 0

    async def run(self, steps: Steps) -> Any:
        """Take all steps and return the result.

        Raises:
            Exception: what a step raised.
            PoolClosed: `close` was called.
        """
        if self._closing:
            raise PoolClosed(_CLOSED)
        if len(self._threads) < _THREADS:
            self._start_thread()
        future = self._loop.create_future()
        with self._changed:
            self._work.append((steps, future))
            self._changed.notify()
        try:
            return await future
        finally:
            # The traceback of a cancellation has this frame, and the future has the
            # traceback: a circle that would keep the memory of what was cancelled.
            del steps, future

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function that lets others in by itself."""
        return await self.run(_one_step(function, args))

    async def close(self) -> None:
        """End the threads; those who wait for work get `PoolClosed`.

        A step that is under way is waited for: it cannot be interrupted.
        """
        with self._changed:
            self._closing = True
            dropped = list(self._work)
            self._work.clear()
            self._changed.notify_all()
        for _, future in dropped:
            _refuse(future)
        if self._threads:
            await self._ended
        for thread in self._threads:
            thread.join()  # it has said its last word

    def _start_thread(self) -> None:
        name = f"offloop-copier-{len(self._threads)}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._threads.append(thread)
        self._serving += 1
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
        self._tell(self._thread_ended)

    def _thread_ended(self) -> None:
        self._serving -= 1
        if not self._serving and not self._ended.done():
            self._ended.set_result(None)

    def _next(self) -> tuple[Steps, asyncio.Future[Any]] | None:
        with self._changed:
            while not self._work and not self._closing:
                self._changed.wait()
            return self._work.popleft() if self._work else None

    def _put_back(self, steps: Steps, future: asyncio.Future[Any]) -> None:
        with self._changed:
            if not self._closing:
                if not future.cancelled():
                    self._work.append((steps, future))
                return
        self._tell(_refuse, future)

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


def _set_result(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _refuse(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(PoolClosed(_CLOSED))


def _set_exception(future: asyncio.Future[Any], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
