"""Long copies and long pickles, in threads, so that the event loop goes on.

    loop ──▶ start(strands) ──▶ [ a, b, c ] ─┬▶ thread: a step of a, a step of b, ...
      ▲                                      ╰▶ thread: the same with other strands
      └──────────────── the last step's result ◀───────┘

Work comes as strands of small steps. Several threads may take those of one work at a
time. Works take turns, so a copy of some megabytes does not wait for one of a gigabyte;
a strand that is alone goes on without a word between its steps. Work that is stopped
takes no further step; what it uses stays until the steps that are under way have ended.
The threads start with the first work and end with the pool.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from offloop.errors import PoolClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    #: does a bit of work with each step; its return value is the result
    Steps = Generator[object, None, Any]
    #: called with the result and None, or with None and the error
    Then = Callable[[Any, BaseException | None], object]

# One copies while the other pickles, or both copy parts of the same; more of them would
# only share the memory's speed.
_THREADS = 2

_CLOSED = "the pool was closed while something large was on its way"


class Work:
    """Strands of steps that a `Copier` takes."""

    __slots__ = ("error", "result", "running", "stopped", "strands", "then")

    def __init__(self, strands: Sequence[Steps], then: Then) -> None:
        #: those that wait for a thread
        self.strands = deque(strands)
        #: how many a thread is busy with
        self.running = 0
        #: told of the end; None when nobody is, any more
        self.then: Then | None = then
        self.stopped = False
        #: of the strand that has ended last
        self.result: Any = None
        #: the first one; the other strands go no further
        self.error: BaseException | None = None

    def stop(self) -> None:
        """Take no further step, and call nobody; on the loop only."""
        self.stopped = True
        self.then = None

    def fail(self, error: BaseException) -> None:
        """Go no further because of an error."""
        self.error = self.error or error
        self.stopped = True

    def end(self) -> None:
        """Tell the one who waits; on the loop only."""
        then, self.then = self.then, None
        result, error = self.result, self.error
        self.result = self.error = None
        if then is not None:
            then(None if error else result, error)


class Copier:
    """Does work in steps, in threads; belongs to one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads: list[threading.Thread] = []
        #: all that has strands which wait, each work once
        self._work: deque[Work] = deque()
        #: guards the works, too
        self._changed = threading.Condition()
        self._closing = False
        #: done when no thread serves any more
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._serving = 0

    def start(self, strands: Sequence[Steps], then: Then) -> Work:
        """Take all steps.

        Args:
            strands: of the work, one at least.
            then: called on the loop when the work has ended, unless it was stopped.
                An error is what a step raised, or that `close` was called.

        Raises:
            PoolClosed: `close` was called before.
        """
        if self._closing:
            raise PoolClosed(_CLOSED)
        for _ in strands[: _THREADS - len(self._threads)]:
            self._start_thread()
        work = Work(strands, then)
        with self._changed:
            self._work.append(work)
            self._changed.notify()
        return work

    async def run(self, *strands: Steps) -> Any:
        """Take all steps and return the result, of one of them.

        Raises:
            Exception: what a step raised.
            PoolClosed: `close` was called.
        """
        future = self._loop.create_future()
        work = self.start(strands, partial(_resolve, future))
        try:
            return await future
        finally:
            work.stop()
            # The traceback of an error has this frame, and the future has the
            # traceback: a circle that would keep the memory that the error is about.
            del strands, future, work

    async def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function that lets others in by itself."""
        return await self.run(_one_step(function, args))

    async def close(self) -> None:
        """End the threads; what waits, and what has not ended, ends with `PoolClosed`.

        A step that is under way is waited for: it cannot be interrupted.
        """
        with self._changed:
            self._closing = True
            for work in self._work:
                work.strands.clear()
                work.fail(PoolClosed(_CLOSED))
                if not work.running:
                    self.tell(work.end)
            self._work.clear()
            self._changed.notify_all()
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
        while self._serve_one():
            pass
        self.tell(self._thread_ended)

    def _thread_ended(self) -> None:
        self._serving -= 1
        if not self._serving:
            self._ended.set_result(None)

    def _serve_one(self) -> bool:
        """Wait for a strand, and take steps of it until others want their turn.

        Returns:
            False when nothing more will come.
        """
        with self._changed:
            while not self._work and not self._closing:
                self._changed.wait()
            if not self._work:
                return False
            work = self._work.popleft()
            strand = work.strands.popleft()
            work.running += 1
            if work.strands:
                self._work.append(work)
                # Another thread may help. Were both woken on the loop, the kernel would
                # often let both run on the one core that was idle at that moment.
                self._changed.notify()
        try:
            while not work.stopped:
                next(strand)
                # Else the loop's thread may wait for this core for 3 to 5 ms, whatever
                # the priority of this thread is; so it waits for a step at most.
                os.sched_yield()
                if self._work or self._closing:
                    break
            left: Steps | None = strand
        except StopIteration as end:
            work.result = end.value
            left = None
        except BaseException as error:
            with self._changed:
                work.fail(error)
            left = None
        # Nothing of a result or an error is held here any more: who gets it on the loop
        # may drop it, and what it holds is free, before this thread has its next turn.
        del strand
        self._lay_down(work, left)
        return True

    def _lay_down(self, work: Work, strand: Steps | None) -> None:
        """Put back a strand that has not ended; find out whether the work has."""
        with self._changed:
            work.running -= 1
            if strand is not None and self._closing and not work.stopped:
                work.fail(PoolClosed(_CLOSED))
            if not work.stopped and strand is not None:
                if not work.strands:
                    self._work.append(work)
                work.strands.appendleft(strand)  # it is nearer to its end than others
                return
            if work.stopped and work.strands:
                self._work.remove(work)
                work.strands.clear()
            over = not work.running and not work.strands
        if over:
            self.tell(work.end)


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
