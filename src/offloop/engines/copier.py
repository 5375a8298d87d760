"""Long copies and long pickles, in threads, so that the event loop goes on.

    loop ──▶ start(steps) ──▶ [ a, b, c ] ──▶ thread: a step of a, a step of b, ...
      ▲                                                │
      └──────────────── the last step's result ◀───────┘

Work comes as iterators of small steps. They take turns, so a copy of some megabytes
does not wait for one of a gigabyte; work that is alone goes on without a word between
its steps. Work that is stopped takes no further step; what it uses stays until the step
that is under way has ended. The threads start with the first work and end with the
pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from offloop.errors import PoolClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    #: does a bit of work with each step; its return value is the result
    Steps = Generator[object, None, Any]
    #: called with the result and None, or with None and the error
    Then = Callable[[Any, BaseException | None], object]

# One copies while the other pickles; more of them would only share the memory's speed.
_THREADS = 2

_CLOSED = "the pool was closed while something large was on its way"


class Work:
    """Steps that a `Copier` takes."""

    __slots__ = ("_copier", "_steps", "_then", "stopped")

    def __init__(self, copier: Copier, steps: Steps, then: Then) -> None:
        self._copier = copier
        self._steps: Steps | None = steps
        self._then: Then | None = then
        self.stopped = False

    def stop(self) -> None:
        """Take no further step, and call nobody; on the loop only."""
        self.stopped = True
        self._then = None

    def take_steps(self) -> bool:
        """Take steps until others want their turn; True if there may be more."""
        steps = self._steps
        assert steps is not None, "nobody takes steps of work that has ended"
        try:
            while not self.stopped:
                next(steps)
                if self._copier.others_wait:
                    break
        except StopIteration as end:
            self._end(end.value, None)
        except BaseException as error:
            self._end(None, error)
        else:
            return True
        return False

    def refuse(self) -> None:
        """End it because the pool is closed."""
        self._end(None, PoolClosed(_CLOSED))

    def _end(self, result: Any, error: BaseException | None) -> None:
        self._steps = None  # with all that it uses
        self._copier.tell(self._ended, result, error)

    def _ended(self, result: Any, error: BaseException | None) -> None:
        then, self._then = self._then, None
        if then is not None:
            then(result, error)


class Copier:
    """Does work in steps, in threads; belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads: list[threading.Thread] = []
        self._work: deque[Work] = deque()
        self._changed = threading.Condition()
        self._closing = False
        #: done when no thread serves any more
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._serving = 0

    @property
    def others_wait(self) -> bool:
        """True if work waits for a thread, or the copier is being closed."""
        return self._closing or bool(self._work)

    def start(self, steps: Steps, then: Then) -> Work:
        """Take all steps.

        Args:
            steps: of the work.
            then: called on the loop when the work has ended, unless it was stopped.
                An error is what a step raised, or that `close` was called.

        Raises:
            PoolClosed: `close` was called before.
        """
        if self._closing:
            raise PoolClosed(_CLOSED)
        if len(self._threads) < _THREADS:
            self._start_thread()
        work = Work(self, steps, then)
        with self._changed:
            self._work.append(work)
            self._changed.notify()
        return work

    async def run(self, steps: Steps) -> Any:
        """Take all steps and return the result.

        Raises:
            Exception: what a step raised.
            PoolClosed: `close` was called.
        """
        future = self._loop.create_future()
        work = self.start(steps, partial(_resolve, future))
        try:
            return await future
        finally:
            work.stop()
            # The traceback of an error has this frame, and the future has the
            # traceback: a circle that would keep the memory that the error is about.
            del steps, future, work

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function that lets others in by itself."""
        return await self.run(_one_step(function, args))

    async def close(self) -> None:
        """End the threads; what waits, and what has not ended, ends with `PoolClosed`.

        A step that is under way is waited for: it cannot be interrupted.
        """
        with self._changed:
            self._closing = True
            dropped = list(self._work)
            self._work.clear()
            self._changed.notify_all()
        for work in dropped:
            work.refuse()
        if self._threads:
            await self._ended
        for thread in self._threads:
            thread.join()  # it has said its last word

    def tell(self, how: Callable[..., object], *what: Any) -> None:
        """Call something on the loop, from any thread."""
        # A loop that was closed meanwhile has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(how, *what)

    def _start_thread(self) -> None:
        name = f"offloop-copier-{len(self._threads)}"
        thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._threads.append(thread)
        self._serving += 1
        thread.start()

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            if work.take_steps():
                self._put_back(work)
            del work  # it may be long until the next one comes
        self.tell(self._thread_ended)

    def _thread_ended(self) -> None:
        self._serving -= 1
        if not self._serving:
            self._ended.set_result(None)

    def _next(self) -> Work | None:
        with self._changed:
            while not self._work and not self._closing:
                self._changed.wait()
            return self._work.popleft() if self._work else None

    def _put_back(self, work: Work) -> None:
        with self._changed:
            if not self._closing:
                if not work.stopped:
                    self._work.append(work)
                return
        work.refuse()


def _resolve(
    future: asyncio.Future[Any], result: Any, error: BaseException | None
) -> None:
    if future.done():  # cancelled a moment ago
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def _one_step(function: Callable[..., Any], args: tuple[Any, ...]) -> Steps:
    return function(*args)
    yield
