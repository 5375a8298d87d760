"""What takes a while on its way in or out: long encodings, copies and decodings.

    call ─▶ encode ─┬─────────────────────────────▶ the scheduler
                    ├─ long copies ─▶ thread ─────▶ (later)
                    └─ a long pickle ─▶ thread ─▶ copies ─▶ ...

Small things are done at once, on the event loop. What would hold it longer than a
fraction of a millisecond goes to threads, and its job enters the scheduler when that is
done. Until then it is pending, and can be cancelled, like any other job.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from functools import partial
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any

from offloop.core.job import Ending, JobState
from offloop.engines import endings
from offloop.engines.call import ENDED
from offloop.engines.copier import Copier
from offloop.errors import OffloopError, PoolClosed, PoolFull
from offloop.messages import READONLY
from offloop.wire import bulk, codec, puts

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Sequence

    from offloop.engines.accounts import Accounts
    from offloop.engines.call import Call
    from offloop.engines.copier import Steps
    from offloop.engines.memory import Large, Memory
    from offloop.wire.codec import Buffer
    from offloop.wire.puts import Stored

# Bytes that are copied on the loop for one call, in 0.3 ms at most. More go to a
# thread: to wake it costs more than that.
_BRIEF = 512 * 1024

# A result of more bytes is decoded in a thread: pickled ones, and those in buffers,
# which may be copied once more.
_LONG_PICKLE = 64 * 1024
_LONG_BUFFERS = 1024 * 1024

# Seconds between two tries when memory is short: a view that goes tells nobody.
_TRY_AGAIN = 0.02


class _Loading:
    """A call on its way in."""

    __slots__ = ("call", "stop", "timer")

    def __init__(self, call: Call, stop: Callable[[], object]) -> None:
        self.call = call
        #: stops what is under way; nobody is told of its end then
        self.stop = stop
        #: ends the job when its time is over; None if it has time
        self.timer: asyncio.TimerHandle | None = None

    def end(self) -> None:
        """It is on its way no more."""
        if self.timer is not None:
            self.timer.cancel()


class Transfers:
    """The way into and out of shared memory, for one pool.

    Args:
        memory: of the pool.
        enter: called with each call whose encoding took a while, when it is done.
        ended: called when a transfer has ended, with the number of jobs it has ended.
        accounts: are told of jobs that end on their way in.
        first_put: number of the first object that is put.
    """

    def __init__(
        self,
        memory: Memory,
        enter: Callable[[Call], None],
        ended: Callable[[int], None],
        accounts: Accounts,
        first_put: int = 1,
    ) -> None:
        self._memory = memory
        self._enter = enter
        self._ended = ended
        self._accounts = accounts
        self._copier = Copier()
        #: jobs that ended before the scheduler had them, by how they did
        self.ended_early: Counter[Ending] = Counter()
        self._closed = False
        #: jobs that are being encoded, by number
        self.loading: dict[int, _Loading] = {}
        self._decoding: set[asyncio.Task[Any]] = set()
        self._letting_go: set[asyncio.Task[Any]] = set()
        self._memory_waiters: set[asyncio.Future[None]] = set()
        self._next_put = count(first_put).__next__
        #: number of objects that were put and are alive
        self.keeps = 0
        self._dropped: deque[int] = deque()

    @property
    def busy(self) -> bool:
        """True while a job is on its way in or out."""
        return bool(self.loading or self._decoding)

    # In

    def encode(
        self,
        owner: object,
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        last: bool = False,
    ) -> bool:
        """Encode a call; True if it enters later.

        Args:
            owner: engine whose objects the arguments may name.
            call: what gets the encoded arguments.
            args: positional arguments.
            kwargs: keyword arguments.
            last: others wait for memory already; there is none for this call.

        Raises:
            NotOffloadable: the arguments cannot travel.
            PoolFull: there is no room for them.
        """
        try:
            arguments, views = self._encode(owner, call, args, kwargs, slowly=False)
        except codec.Bulky:
            self._load_slowly(call, self._encode_slowly(owner, call, args, kwargs))
            return True
        call.arguments = arguments
        if not views and (
            type(arguments) is tuple or len(arguments) < codec.OUT_OF_BAND
        ):
            return False
        copies = self._hold(call, arguments, views, last=last)
        if not copies:
            return False
        self._load(call, copies)
        return True

    def _encode(
        self,
        owner: object,
        call: Call,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        slowly: bool,
    ) -> tuple[Any, list[Buffer]]:
        named = call.function
        applied = not named.id
        if not self.keeps:
            return codec.encode_call(
                args,
                kwargs,
                named.name,
                applied=applied,
                many=call.many is True,
                slowly=slowly,
            )
        with puts.collecting(owner) as stored:
            encoded = codec.encode_call(
                args,
                kwargs,
                named.name,
                applied=applied,
                many=call.many is True,
                slowly=slowly,
            )
        call.stored = stored
        return encoded

    def _hold(
        self, call: Call, arguments: Any, views: Sequence[Buffer], *, last: bool = False
    ) -> list[Steps]:
        """Find room for large arguments, and copy them if that is quick.

        Returns:
            The steps of the copies that are still to be done.
        """
        parts = list(views)
        envelope = arguments
        if type(arguments) is not tuple and len(arguments) >= codec.OUT_OF_BAND:
            parts.append(arguments)
            envelope = None
        call.buffers, todo = self._place(parts, last=last)
        call.arguments = envelope
        return _copies(self._memory, todo)

    def _place(
        self, parts: Sequence[Buffer], mode: int | None = None, *, last: bool = False
    ) -> tuple[list[Large], list[tuple[Large, Buffer]]]:
        """Return what stands for each part, and those that are still to be copied.

        Raises:
            PoolFull: there is no room for all of them; none is kept then.
        """
        memory = self._memory
        found = [memory.located(part) for part in parts]
        new = [part for part, large in zip(parts, found, strict=True) if large is None]
        memory.check(sum(memoryview(part).nbytes for part in new), len(new))
        if new and last:
            raise memory.taken()
        held: list[Large] = []
        try:
            held += map(memory.hold, new)
            todo = self._begin_copies(held, new)
        except BaseException:
            held.clear()  # the traceback may live for long: not so the blocks
            raise
        rest = iter(held)
        buffers = [next(rest) if large is None else large for large in found]
        if mode is not None:
            for large in buffers:
                large.mode = mode
        return buffers, todo

    def _begin_copies(
        self, larges: Sequence[Large], parts: Sequence[Buffer]
    ) -> list[tuple[Large, Buffer]]:
        """Copy what takes a moment; return the rest."""
        todo: list[tuple[Large, Buffer]] = []
        brief = _BRIEF
        for large, part in zip(larges, parts, strict=True):
            brief -= large.size
            if brief >= 0:
                self._memory.arena.write(large.block, part)
            else:
                todo.append((large, part))
        return todo

    async def _encode_slowly(
        self, owner: object, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> list[Steps]:
        """Encode in a thread and find room; returns what is still to be copied."""

        def encode() -> tuple[Any, list[Buffer]]:
            return self._encode(owner, call, args, kwargs, slowly=True)

        arguments, views = await self._copier.call(encode)
        call.arguments = arguments
        waits = call.options.on_full == "wait"
        copies: list[Steps] = await self._when_room(
            lambda: self._hold(call, arguments, views), waits=waits
        )
        return copies

    async def _when_room(self, place: Callable[[], Any], *, waits: bool) -> Any:
        while not self._closed:
            try:
                return place()
            except PoolFull as full:
                if full.never or not waits:
                    raise
            await self.memory_change()
        raise PoolClosed("the pool was closed while something waited for its memory")

    def _load(self, call: Call, copies: list[Steps]) -> None:
        """Copy what is large; then the call enters."""
        work = self._copier.start(copies, partial(self._loaded, call))
        self._begin_loading(call, work.stop)

    def _load_slowly(self, call: Call, encoding: Coroutine[Any, Any, Any]) -> None:
        """Encode a call, and copy what is large; then the call enters."""
        task = asyncio.ensure_future(encoding)
        # Not in the task itself: one that is cancelled at once never begins.
        task.add_done_callback(partial(self._encoded, call))
        self._begin_loading(call, task.cancel)

    def _encoded(self, call: Call, task: asyncio.Task[Any]) -> None:
        if call.id not in self.loading:
            return
        if error := task.exception():
            self._loaded(call, None, error)
        elif copies := task.result():
            work = self._copier.start(copies, partial(self._loaded, call))
            self.loading[call.id].stop = work.stop
        else:
            self._loaded(call, None, None)

    def _begin_loading(self, call: Call, stop: Callable[[], object]) -> None:
        loading = self.loading[call.id] = _Loading(call, stop)
        if call.deadline < inf:
            delay = max(call.deadline - time.monotonic(), 0.0)
            loop = asyncio.get_running_loop()
            loading.timer = loop.call_later(delay, self._late, call.id)

    def _late(self, job: int) -> None:
        """End a job whose time is over before it was on its way."""
        loading = self.loading.pop(job)
        loading.stop()
        self._end_early(loading.call, Ending.TIMEOUT, None)

    def _loaded(self, call: Call, _: None, error: BaseException | None) -> None:
        """Let a call enter whose way in has ended, or end its job."""
        self.loading.pop(call.id).end()
        if error is None:
            try:
                self._enter(call)
            except OffloopError as refusal:
                error = refusal
        if error is not None:
            self._end_early(call, Ending.ERROR, error)

    def _end_early(
        self, call: Call, ending: Ending, error: BaseException | None
    ) -> None:
        """End a job that the scheduler has not seen."""
        self.ended_early[ending] += 1
        call.buffers = call.stored = ()
        future = call.handle
        if ending is Ending.CANCELLED:
            call.move(JobState.CANCELLED)
            asyncio.Future.cancel(future)
        else:
            call.move(JobState.FAILED)
            error = endings.error_of(call, ending, error)
            if not future.done():
                future.set_exception(error)
        self._accounts.ended(call, ending, error)
        call.handle = ENDED
        self._ended(1)

    def cancel(self, job: int) -> bool:
        """Stop a job on its way in; False if it is not."""
        loading = self.loading.pop(job, None)
        if loading is None:
            return False
        loading.end()
        loading.stop()
        self._end_early(loading.call, Ending.CANCELLED, None)
        return True

    def cancel_all(self) -> None:
        """Stop all jobs on their way in."""
        for job in list(self.loading):
            self.cancel(job)

    # Out

    def decode(self, call: Call, payload: Any, buffers: Sequence[Buffer]) -> bool:
        """Decode a result in a thread, if it is large; else return False."""
        decode = _slow_decode(payload, buffers)
        if decode is None:
            return False
        task = asyncio.ensure_future(self._copier.call(decode, payload, buffers))
        self._decoding.add(task)
        task.add_done_callback(partial(self._decoded, call))
        return True

    def _decoded(self, call: Call, task: asyncio.Task[Any]) -> None:
        self._decoding.discard(task)
        future = call.handle
        if task.cancelled():
            asyncio.Future.cancel(future)
        elif error := task.exception():
            if not future.done():
                future.set_exception(endings.undecodable(call, error))
        elif not future.done():
            future.set_result(task.result())
        call.handle = ENDED
        self._ended(0)

    async def read(self, payload: Any, buffers: Sequence[Buffer]) -> Any:
        """Decode a part of a stream, in a thread if it is large.

        Raises:
            Exception: what its class raises.
        """
        decode = _slow_decode(payload, buffers)
        if decode is None:
            return codec.decode(payload, buffers)
        return await self._copier.call(decode, payload, buffers)

    async def place(self, parts: Sequence[Buffer]) -> list[Large]:
        """Copy buffers into memory, when there is room for them.

        Raises:
            PoolFull: there never can be.
        """
        buffers: list[Large]
        buffers, todo = await self._when_room(lambda: self._place(parts), waits=True)
        if todo:
            await self._copier.run(*_copies(self._memory, todo))
        return buffers

    # What is shared by many jobs

    async def put(self, owner: object, obj: object) -> Stored:
        """Keep an object where all workers can read it.

        Raises:
            NotOffloadable: it cannot travel.
            PoolFull: it is larger than what the memory may hold.
        """
        kind = type(obj).__qualname__
        what = f"put({kind})"
        try:
            payload, views = codec.encode(obj, describe=what)
        except codec.Bulky:
            payload, views = await self._copier.call(
                lambda: codec.encode(obj, describe=what, slowly=True)
            )
        buffers, todo = await self._when_room(
            lambda: self._place([payload, *views], READONLY), waits=True
        )
        if todo:
            await self._copier.run(*_copies(self._memory, todo))
        stored = puts.Stored(owner, self._next_put(), kind, self._dropped.append)
        stored.blocks = buffers
        self.keeps += 1
        return stored

    def drain_dropped(self) -> list[int]:
        """Return the numbers of what nobody refers to any more."""
        dropped = [self._dropped.popleft() for _ in range(len(self._dropped))]
        self.keeps -= len(dropped)
        return dropped

    # Memory

    async def memory_change(self) -> None:
        """Wait until there may be more room than there was."""
        waiter = asyncio.get_running_loop().create_future()
        self._memory_waiters.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=_TRY_AGAIN)
        finally:
            self._memory_waiters.discard(waiter)

    def memory_freed(self) -> None:
        """Let those try again who wait for room."""
        for waiter in self._memory_waiters:
            if not waiter.done():
                waiter.set_result(None)

    def let_go(self, steps: Generator[object, None, None]) -> None:
        """Take steps that last a while because they give much memory back."""
        if self._closed:  # a worker that ended late: there is nobody left to disturb
            deque(steps, maxlen=0)
            return
        task = asyncio.ensure_future(self._copier.run(steps))
        self._letting_go.add(task)
        task.add_done_callback(self._letting_go.discard)

    async def close(self) -> None:
        """End what is on its way, and the threads."""
        self._closed = True
        self.cancel_all()
        tasks: list[asyncio.Task[Any]] = list(self._decoding)
        for task in tasks:
            task.cancel()
        tasks += self._letting_go
        if tasks:
            await asyncio.wait(tasks)
        self.memory_freed()
        await self._copier.call(self._memory.close)
        await self._copier.close()


def _slow_decode(
    payload: Any, buffers: Sequence[Buffer]
) -> Callable[[Any, Any], Any] | None:
    """Return what decodes it in a thread; None: it takes a moment only."""
    if len(payload) > _LONG_PICKLE:
        return bulk.load_slowly
    if sum(len(buffer) for buffer in buffers) < _LONG_BUFFERS:
        return None
    return codec.decode


def _copies(memory: Memory, todo: Sequence[tuple[Large, Buffer]]) -> list[Steps]:
    """Return the steps that copy each buffer into its block, for several threads."""
    slices = memory.arena.strands
    return [strand for large, part in todo for strand in slices(large.block, part)]
