"""The pool, for asyncio: its options, and what can be asked of it beside calls.

It hands everything to its engine, and never touches a process, a socket or a byte
itself. How it begins and ends is `lifecycle`; the calls that it takes are `view`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Never, TypeVar

from offloop.ahead import Results
from offloop.engines.base import Job, Progress, Stream, Timings
from offloop.engines.figures import PoolStats
from offloop.errors import UsageError
from offloop.gathering import Gathering
from offloop.lifecycle import Lifecycle
from offloop.options import (
    JobOptions,
    PoolOptions,
    Recycle,
    Seconds,
    Size,
    chosen_engine,
    refuse_unknown,
    whole,
)
from offloop.telemetry.events import Event
from offloop.view import PoolView

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from offloop.engines.figures import WorkerDump, WorkerInfo

__all__ = [
    "Job",
    "Pool",
    "PoolStats",
    "PoolView",
    "Progress",
    "Results",
    "Stream",
    "Timings",
]

E = TypeVar("E", bound=Event)


class Pool(Lifecycle, PoolView):
    """Worker processes for an asyncio program.

    It starts with `async with` or `await start()`, and does nothing before. Leaving
    `async with` normally drains the pool; leaving it by an exception cancels what is
    pending, as a TaskGroup does.

    Args:
        max_workers: processes; None: usable cores less one, at least 1, with affinity
            and container quotas respected.
        engine: where jobs run: "local" (processes of this machine), "thread" (threads
            of this process), "shared" (the processes of `offloop serve`) or "inline"
            (here, for debugging and tests). The variable OFFLOOP_ENGINE overrides it.
        max_pending: jobs that may be queued or running; None: any number.
        max_pending_bytes: bytes of encoded arguments, or a text such as "512MiB", from
            which no further job is taken until others have ended; None: any number.
        timeout: seconds from submission to result of each job; None: no limit.
        run_timeout: seconds from the start of each run; None: no limit.
        arena_limit: bytes, or a text such as "512MiB", of shared memory for arguments
            of 16 KiB and more, and as many for results; None: a quarter of what this
            machine or container has.
        grace: seconds between asking a job to stop and killing its worker.
        retries: further attempts after a lost worker.
        preload: modules to import once, before the first worker is forked.
        initializer: called once in each worker before its first job.
        initargs: its arguments.
        threads_per_worker: threads that BLAS and OpenMP libraries start in each worker;
            None: what they like. Variables that are set already are left alone.
        env: variables for the workers, added to this process's.
        name: for messages.
        min_workers: processes that there always are; more come, up to `max_workers`,
            when jobs wait, and go when they are idle. None: the size is fixed, or, with
            `idle_timeout`, 0.
        idle_timeout: seconds after which an idle process goes; None: 60, if the size is
            not fixed.
        spare_workers: processes beside those, ready and idle: one takes the place of a
            worker that was killed, or that an elastic pool needs, without a start.
        isolation: "process" gives each job a process of its own, forked before it is
            needed; None: workers are used again.
        sandbox: jobs get no network, start no programs, and signal nobody (Linux); see
            `offloop.sandbox` for what it gives and what not. Needs `isolation`.
        recycle: when a worker is replaced by a fresh one; None: never. No job waits for
            that or is lost by it.
        memory_limit: bytes that a worker may hold for itself while it runs a job; the
            job that asks for more ends with MemoryLimitExceeded. None: any number.
        slow_job: seconds; a job that runs for longer is told of when it ends, by a
            warning and the event `JobSlow`. None: none is.
        control: this user may watch and operate the pool from outside, by `offloop top`
            and others, through a socket that nobody else can reach.
        forward_logs: what jobs log is handled by the logging of this program, with the
            job's number, function and worker; False: by that of the workers.
        capture_output: lines that jobs print become log records, of `offloop.stdout`
            (INFO) and `offloop.stderr` (WARNING), and are not printed.

    Raises:
        TypeError: for a word that is not an option, or a value of the wrong type.
        ValueError: for a value out of range.

    Example:
        async with Pool() as pool:
            digest = await pool.run(hash_file, path)
    """

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        engine: str = "local",
        max_pending: int | None = 100_000,
        max_pending_bytes: Size | None = None,
        arena_limit: Size | None = None,
        timeout: Seconds | None = None,
        run_timeout: Seconds | None = None,
        grace: Seconds = 0.2,
        retries: int = 0,
        preload: Sequence[str] = (),
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        threads_per_worker: int | None = 1,
        env: Mapping[str, str] | None = None,
        name: str = "offloop",
        min_workers: int | None = None,
        idle_timeout: Seconds | None = None,
        spare_workers: int = 0,
        recycle: Recycle | None = None,
        memory_limit: Size | None = None,
        pin_cpus: bool = False,
        isolation: Literal["process"] | None = None,
        sandbox: bool = False,
        slow_job: Seconds | None = None,
        control: bool = True,
        forward_logs: bool = True,
        capture_output: bool = False,
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, _POOL_WORDS, "pool option")
        _refuse_later(
            pin_cpus=pin_cpus or None,
        )
        job = JobOptions().changed(
            {"timeout": timeout, "run_timeout": run_timeout, "retries": retries}
        )
        sized: dict[str, Any] = {}
        if max_workers is not None:
            sized["max_workers"] = max_workers
        if arena_limit is not None:
            sized["arena_limit"] = arena_limit
        options = PoolOptions(
            engine=chosen_engine(engine),
            max_pending=max_pending,
            max_pending_bytes=max_pending_bytes,  # type: ignore[arg-type]  # an int soon
            grace=grace,  # type: ignore[arg-type]  # made a float by the options
            preload=preload,  # type: ignore[arg-type]  # made a tuple by the options
            initializer=initializer,
            initargs=initargs,
            threads_per_worker=threads_per_worker,
            env=env or {},
            name=name,
            min_workers=min_workers,
            idle_timeout=idle_timeout,  # type: ignore[arg-type]  # made a float there
            spare_workers=spare_workers,
            isolation=isolation,
            sandbox=sandbox,
            recycle=recycle,
            memory_limit=memory_limit,  # type: ignore[arg-type]  # made an int there
            slow_job=slow_job,  # type: ignore[arg-type]  # made a float there
            control=control,
            forward_logs=forward_logs,
            capture_output=capture_output,
            job=job,
            **sized,
        )
        Lifecycle.__init__(self, options)
        PoolView.__init__(self, self, job)
        #: calls that share runs, once there are such
        self._gathering: Gathering | None = None

    async def ready(self) -> None:
        """Wait until all workers are ready, their `initializer` included.

        Raises:
            StartError: when workers cannot start.
        """
        await self._engine_now().ready()

    def on(
        self, event: type[E] | str, callback: Callable[[E], object]
    ) -> Callable[[], None]:
        """Have something called whenever an event happens; may be called at any time.

        Args:
            event: a class of `offloop.telemetry.events` or its name, such as
                `WorkerEnded` or "worker_ended"; `Event` stands for all of them.
            callback: called with the event, on the event loop, soon after it happened.
                What it raises is logged and harms nobody.

        Returns:
            A function that ends this.

        Raises:
            ValueError: there is no such event.
            TypeError: the callback is a coroutine function, or cannot be called.
        """
        return self._listeners.add(event, callback)

    def empty(self, shape: int | tuple[int, ...], dtype: Any = "float64") -> Any:
        """Return a new numpy array that jobs get without a copy.

        Its content is arbitrary. It lies in memory that the workers see. They get it
        read-only, and see what you write later: fill it, send it, and then leave it
        alone. The first array of a size takes 0.3 ms a megabyte, as the system clears
        its memory; later ones next to nothing.

        Args:
            shape: an int or a tuple of ints.
            dtype: anything that `numpy.dtype` takes.

        Raises:
            PoolFull: `arena_limit` bytes are in use.
            TypeError: the dtype holds Python objects.
        """
        return self._engine_now().empty(shape, dtype)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any = "float64") -> Any:
        """Return an array as `empty` does, full of zeros."""
        return self._engine_now().empty(shape, dtype, zero=True)

    async def put(self, obj: object) -> Any:
        """Send an object once, for any number of jobs.

        Args:
            obj: anything that can be an argument. It must not change until this
                returns.

        Returns:
            A `Ref`. Use it as an argument of jobs of this pool, alone or inside of
            containers: they get the object, its arrays read-only. It is dropped with
            the last reference.

        Raises:
            NotOffloadable: it cannot be sent.
            PoolFull: it is larger than `arena_limit`.
        """
        return await self._engine_now().put(obj)

    async def wait_capacity(self) -> None:
        """Wait until one more job would be accepted, behind those who wait already.

        A `submit` directly after it does not raise `PoolFull`.

        Raises:
            PoolClosed: the pool is not open, or was closed meanwhile.
        """
        await self._engine_now().wait_room()

    async def resize(self, max_workers: int) -> None:
        """Change `max_workers`; running jobs are not disturbed.

        A pool of a fixed size has so many when this returns; an elastic one may.

        Raises:
            ValueError: for less than 1.
        """
        whole("max_workers", max_workers, least=1)
        await self._engine_now().resize(max_workers)

    async def reload(self, probe: Callable[[], object] | None = None) -> None:
        """Replace all workers by ones that import your code anew; no job is lost.

        One worker of the new code is tried first. If it cannot start, or fails the
        probe, the old ones stay. Otherwise they are replaced one by one, each while it
        finishes its job. Functions that travel by value (from `__main__`, lambdas) are
        those of this process, which is not reloaded.

        Args:
            probe: called in the new worker; if it raises, or returns False, the new
                code is refused.

        Raises:
            StartError: the new code was refused; says why.
            NotOffloadable: the probe cannot be sent.
        """
        await self._engine_now().reload(probe)

    async def dump(self) -> list[WorkerDump]:
        """Return what each worker is doing now, with tracebacks of its threads.

        Works in an endless loop of C code too; takes some milliseconds, and disturbs
        nobody. A worker that somebody has stopped says so.
        """
        return await self._engine_now().dump()

    def stats(self) -> PoolStats:
        """Return what the pool is doing and has done; all zero before it is started."""
        return PoolStats() if self._engine is None else self._engine.stats()

    def workers(self) -> list[WorkerInfo]:
        """Return what each worker is and does now, in the order of their places.

        Nobody is asked or disturbed: it takes microseconds. None are told of by engines
        without workers of their own ("inline", "shared"), and before the start.
        """
        return [] if self._engine is None else self._engine.workers()

    def story(self, job: Job[Any]) -> str:
        """Return what happened to a job so far, in words."""
        return self._engine_now().story(job)

    def _gathered(self) -> Gathering:
        if self._gathering is None:
            self._gathering = Gathering(self._run_alone)
        return self._gathering

    async def _run_alone(
        self,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        options: JobOptions,
    ) -> Any:
        """Run a call that stands for several."""
        view = PoolView(self, replace(options, single_flight=False, batch=None))
        return await view.run(fn, *args, **kwargs)

    def _jobs_ahead(self) -> int:
        """Return how many jobs `map` keeps going: enough for no worker to wait."""
        return 4 * self._options.max_workers + 4


_POOL_WORDS = (
    "max_workers",
    "engine",
    "max_pending",
    "max_pending_bytes",
    "arena_limit",
    "timeout",
    "run_timeout",
    "grace",
    "retries",
    "preload",
    "initializer",
    "initargs",
    "threads_per_worker",
    "env",
    "name",
    "recycle",
    "memory_limit",
    "min_workers",
    "idle_timeout",
    "spare_workers",
    "isolation",
    "sandbox",
    "slow_job",
    "control",
    "forward_logs",
    "capture_output",
)


_LATER = {
    "pin_cpus": "pinning to cores",
}


def _refuse_later(**given: object) -> None:
    """Refuse words that are reserved for a later version, rather than ignore them."""
    for word, value in given.items():
        if value is not None:
            raise UsageError(f"{word}: {_LATER[word]} is not part of this version")
