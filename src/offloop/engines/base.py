"""What every engine must do, and the jobs and streams that it hands out."""

from __future__ import annotations

import abc
import asyncio
import time
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from offloop.wire import carried as carriage
from offloop.wire import puts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    from offloop.engines.call import Call
    from offloop.engines.figures import PoolStats, WorkerDump, WorkerInfo
    from offloop.errors import PoolFull
    from offloop.options import JobOptions, PoolOptions
    from offloop.wire.carried import Carried
    from offloop.wire.puts import Stored

T = TypeVar("T")


class Ref:
    """An object that was put into a pool; jobs of the pool get it in its place.

    Made by `Pool.put`. Use it as an argument, alone or inside of containers. The object
    is dropped when the last reference to it has gone and no job needs it.
    """

    __slots__ = ("__weakref__", "_stored")

    def __init__(self, stored: Stored) -> None:
        self._stored = stored

    def __reduce__(self) -> tuple[Any, ...]:
        return puts.reduce(self._stored)

    def __repr__(self) -> str:
        return f"<Ref {self._stored.number} to {self._stored.what}>"


class Timings(NamedTuple):
    """How long each stage of a job took, in seconds; 0.0 for a stage not reached.

    Attributes:
        queued: from submission until it left for a worker.
        sent: from then until its function was called.
        run: in the function, decoding and encoding included.
        returned: from then until its result was back.
    """

    queued: float
    sent: float
    run: float
    returned: float


class Progress(NamedTuple):
    """How far a job said that it is, by `current_job().report(...)`.

    Attributes:
        done: how much is done, in any unit.
        total: how much there is to do, in the same unit; None: it did not say.
        message: for people.
    """

    done: float
    total: float | None
    message: str


class Job(asyncio.Future[T], Generic[T]):
    """A call on its way to a worker and back: an `asyncio.Future` of its result.

    Await it any number of times; cancel it, or cancel what awaits it, and the work is
    stopped. Jobs are made by `Pool.submit` and by an offloaded function's ``submit``.
    """

    __slots__ = ("_call", "_engine", "_progress", "_reported")

    #: what the scheduler of its engine knows; set before it is handed out
    _call: Call

    def __init__(self, engine: Engine) -> None:
        super().__init__(loop=engine.loop)
        self._engine = engine
        self._progress: Progress | None = None
        #: set at each report and at the end, for those who wait for it; made by them
        self._reported: asyncio.Event | None = None

    @property
    def id(self) -> int:
        """Its number in the pool, from 1."""
        return self._call.id

    @property
    def function(self) -> str:
        """Name of the function, for messages."""
        return self._call.function.name

    @property
    def state(self) -> str:
        """One of "queued", "delayed", "sent", "done", "failed" and "cancelled"."""
        return str(self._call.state.value)

    @property
    def worker(self) -> int | None:
        """Number of the worker that has the job, or had it last; None before."""
        return self._call.worker

    @property
    def attempts(self) -> int:
        """How many times the job was given to a worker to run."""
        return self._call.attempts

    @property
    def timings(self) -> Timings:
        """How long each stage took so far."""
        call = self._call
        started = call.started_at
        queued = sent = returned = 0.0
        if call.sent_at:
            queued = call.sent_at - call.submitted_at
        if started:
            sent = max(started - call.sent_at, 0.0)
        if call.returned_at and started:
            returned = max(call.returned_at - started - call.run_time, 0.0)
        return Timings(queued, sent, call.run_time, returned)

    @property
    def progress(self) -> Progress | None:
        """What the job last said of its progress; None before that."""
        return self._progress

    async def updates(self) -> AsyncGenerator[Progress]:
        """Yield what the job says of its progress, until it ends.

        Reports that come faster than they are taken are passed over, but for the last.
        The job's result or error is what awaiting the job gives.
        """
        if self._reported is None:
            self._reported = asyncio.Event()
            self.add_done_callback(self._note_end)
        last = None
        while True:
            self._reported.clear()
            if self._progress is not last:
                last = self._progress
                assert last is not None  # it only grows
                yield last
            elif self.done():
                return
            else:
                await self._reported.wait()

    def _note_progress(self, progress: Progress) -> None:
        self._progress = progress
        if self._reported is not None:
            self._reported.set()

    def _note_end(self, job: object) -> None:
        assert self._reported is not None
        self._reported.set()

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel the job: queued, it never runs; running, it is stopped.

        Returns:
            False when it had ended already.
        """
        if not super().cancel(msg):
            return False
        self._engine.cancel(self._call.id)
        return True

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.function} {self.state}>"


class Inflow(abc.ABC):
    """The parts of one stream, as they come from its generator."""

    #: what runs the generator; None until the first part was asked for
    job: Job[Any] | None

    @abc.abstractmethod
    async def next_batch(self) -> list[Any]:
        """Return the parts that come next, at least one; none: that was the end.

        The parts given before count as taken. The first call begins the stream.

        Raises:
            Exception: what submitting raises; what the generator raised, or why it did
                not come to its end, after the parts before it.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Want no more: the generator is closed, and there are no further parts."""


class Stream(Generic[T]):
    """What a generator in a worker yields: an asynchronous iterator.

    Made by `Pool.stream`, and by an offloaded function's ``stream``. It begins when the
    first part is asked for. Leaving the loop, `aclose`, or cancelling what iterates
    closes the generator: its `finally` blocks run.
    """

    __slots__ = ("_inflow", "_parts")

    def __init__(self, inflow: Inflow) -> None:
        self._inflow = inflow
        self._parts: AsyncGenerator[T] = _parts_of(inflow)

    @property
    def job(self) -> Job[Any] | None:
        """The job that runs the generator; None until the first part was asked for.

        It has the stream's `progress` and `updates`. Its result is the value that the
        generator returns.
        """
        return self._inflow.job

    def __aiter__(self) -> AsyncGenerator[T]:
        # The generator itself: a loop then holds that alone, and leaving it closes it.
        return self._parts

    def __anext__(self) -> Coroutine[Any, Any, T]:
        return self._parts.__anext__()

    async def aclose(self) -> None:
        """Close the stream; returns at once, the worker closes the generator."""
        self._inflow.close()
        if not getattr(self._parts, "ag_running", False):
            await self._parts.aclose()

    def __repr__(self) -> str:
        return f"<Stream of {self.job!r}>" if self.job else "<Stream, not begun>"


async def _parts_of(inflow: Inflow) -> AsyncGenerator[Any]:
    try:
        while batch := await inflow.next_batch():
            for part in batch:
                yield part
    finally:
        inflow.close()


def _nothing() -> None:
    pass


class Engine(abc.ABC):
    """One place where jobs run. Belongs to the event loop that runs when it is made."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        #: in monotonic seconds
        self.made_at = time.monotonic()
        #: lives as long as the engine does
        self.keeper: object = None
        #: what operates it from outside, if anything does; hangs up before it ends
        self.operated: Any = None

    @classmethod
    def check(cls, options: PoolOptions) -> None:
        """Refuse options of a pool that cannot be kept here, before it is started.

        Raises:
            UsageError: names the one.
        """
        del options  # most engines can have all

    def capture(self) -> Carried | None:
        """Return what a job sees of the current context; None if it is nothing."""
        return carriage.capture()

    @abc.abstractmethod
    def begin(self) -> None:
        """Begin to start, without waiting; jobs may be submitted at once."""

    @abc.abstractmethod
    async def started(self) -> None:
        """Wait until jobs can run.

        Raises:
            StartError: when they cannot.
        """

    @abc.abstractmethod
    async def ready(self) -> None:
        """Wait until every worker is ready.

        Raises:
            StartError: when workers cannot start.
        """

    @abc.abstractmethod
    def start(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions,
        future: asyncio.Future[Any],
        *,
        many: bool | int = False,
        carried: Carried | None = None,
    ) -> int:
        """Queue a call: encode it, and see to it that `future` gets its ending.

        Args:
            function: what to call.
            args: its positional arguments; if `many`, a chunk: a list of items, True if
                each item is a tuple of arguments, True to go on after one that fails.
            kwargs: its keyword arguments.
            options: of the job.
            future: gets the job's ending: a `Job`, if somebody is to see it; if not, a
                future of the loop is faster.
            many: call the function with each item; the result is a list, or
                `wire.chunks.Mixed` if one has failed. A number: send what it yields;
                so many parts may be ahead of their consumer.
            carried: what the job sees of its caller's context; None: of this one.

        Returns:
            The job's number, for `cancel`.

        Raises:
            NotOffloadable: the function or an argument cannot travel.
            PoolFull: there is no room.
        """

    @abc.abstractmethod
    def start_at_once(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions,
        future: asyncio.Future[Any],
    ) -> int | None:
        """Queue a call as `start` does, unless it has to wait and may.

        Returns:
            The job's number; None: use `start`, by `in_turn`.

        Raises:
            Exception: what `start` raises, but for a lack of room that may end.
        """

    @abc.abstractmethod
    async def in_turn(self, start: Callable[[], T]) -> T:
        """Call something that queues one job, when there is room, in order of arrival.

        Args:
            start: calls `start`; called again if that finds no room for the arguments.

        Returns:
            What it returned.

        Raises:
            PoolFull: there can never be room.
            Exception: what it raised.
        """

    @abc.abstractmethod
    def tell_refused(self, function: Callable[..., Any], full: PoolFull) -> None:
        """Tell whoever listens that a call was refused; whoever lets that pass does."""

    @abc.abstractmethod
    def cancel(self, job: int) -> None:
        """See to it that a job whose future was cancelled does not go on."""

    @abc.abstractmethod
    def stream(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions,
    ) -> Inflow:
        """Return what brings the parts that a generator function yields.

        Its job is queued when the first of them is asked for.
        """

    @abc.abstractmethod
    def empty(self, shape: Any, dtype: Any, *, zero: bool = False) -> Any:
        """Return a new numpy array that can be sent without a copy, if that can be."""

    @abc.abstractmethod
    async def put(self, obj: object) -> Ref:
        """Keep an object where all workers can read it."""

    async def wait_room(self) -> None:
        """Wait, in order of arrival, until one more job has room."""
        await self.in_turn(_nothing)

    @abc.abstractmethod
    async def drain(self) -> None:
        """Wait until no job is pending."""

    @abc.abstractmethod
    def cancel_all(self) -> None:
        """Cancel every pending job."""

    @abc.abstractmethod
    async def close(self) -> None:
        """End everything that was started; pending jobs are cancelled first."""

    def kill(self) -> None:
        """Cancel every pending job, and let `close` wait for none, also if it does."""
        self.cancel_all()

    @abc.abstractmethod
    def abandon(self) -> None:
        """Leave nothing behind, though the loop is closed and can wait for nobody."""

    @abc.abstractmethod
    async def resize(self, max_workers: int) -> None:
        """Change the number of workers; running jobs are not disturbed."""

    @abc.abstractmethod
    async def reload(self, probe: Callable[[], object] | None) -> None:
        """Replace all workers by ones that have imported everything anew.

        Raises:
            StartError: the new ones are no good; the old ones go on.
        """

    @abc.abstractmethod
    async def dump(self) -> list[WorkerDump]:
        """Return what each worker is doing now."""

    @abc.abstractmethod
    def stats(self) -> PoolStats:
        """Return the figures of this moment."""

    def workers(self) -> list[WorkerInfo]:
        """Return what each worker of this engine's own is doing; it has none here."""
        return []

    @property
    def home(self) -> str:
        """Directory of its sockets, which goes even if the program is killed, or ""."""
        return ""

    @property
    def wanted(self) -> int:
        """Workers that there should be now."""
        return 0

    def kill_worker(self, number: int) -> int | None:
        """Kill a worker, as if somebody else had; returns its process id.

        Raises:
            ValueError: there is none of that number.
        """
        raise ValueError(f"there is no worker {number}")

    @abc.abstractmethod
    def story(self, job: Job[Any]) -> str:
        """Return what happened to a job so far, for people."""
