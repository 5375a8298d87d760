"""Figures of pools for Prometheus: an endpoint for any ASGI application.

    GET /metrics ─▶ look at all pools (their loops) ─▶ memory, text (a thread) ─▶ answer

All figures live in the process that has the pool: workers tell it what they do anyway.
So there are no files of dead processes, and no series but those of places, functions
and reasons: a worker's successor goes on in its place. Counts never go back while the
process lives, whatever dies in it: what a closed pool has counted stays.

Nothing here is imported by a pool, and prometheus-client only by this module.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client import exposition
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from offloop import lifecycle, machine
from offloop.loop_watch import watch_loop, watches
from offloop.telemetry.durations import Durations

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from typing import TypeAlias

    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

    from offloop.engines.figures import PoolStats, WorkerInfo
    from offloop.pool import Pool

    Scope: TypeAlias = Mapping[str, Any]
    Receive: TypeAlias = Callable[[], Awaitable[Mapping[str, Any]]]
    Send: TypeAlias = Callable[[dict[str, Any]], Awaitable[None]]

__all__ = ["PoolCollector", "metrics_app"]

# Upper bounds of the buckets, in seconds: from what a short job takes to the usual time
# limits. Each is exact to 1 %.
_BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)

_STATES = ("starting", "standby", "idle", "busy", "retiring", "stopping")

_ENDINGS = ("completed", "failed", "cancelled", "timed_out", "lost")

# Seconds that another event loop has for telling of its pools.
_PATIENCE = 1.0


class Seen(NamedTuple):
    """What was seen of the pools of one name.

    Attributes:
        name: of the pools.
        stats: figures of all of them together.
        workers: of all of them.
    """

    name: str
    stats: PoolStats
    workers: list[WorkerInfo]


class PoolCollector(Collector):
    """Tells a registry of prometheus-client about pools, whenever it is asked.

    It is asked on the event loop of the pools.

    Args:
        pools: which ones.
    """

    def __init__(self, *pools: Pool) -> None:
        self._pools = pools

    def collect(self) -> Iterator[Metric]:
        """Yield all figures but shares of memory, which take too long for a loop."""
        return _families(_merged([_look(pool) for pool in self._pools]), shares=False)


def metrics_app(
    *pools: Pool, registry: CollectorRegistry | None = None, watch: bool = True
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return an ASGI application that answers with the figures of pools.

    Mount it, or serve it alone. It answers in the format of Prometheus or of
    OpenMetrics, as it is asked.

    Args:
        *pools: which ones; none: all of this process, whatever loop or executor they
            belong to.
        registry: of prometheus-client; what it has is told besides.
        watch: also watch the event loop that the application runs on, by `watch_loop`,
            unless that is done already.
    """
    return _MetricsApp(pools, registry, watch)


class _MetricsApp:
    def __init__(
        self, pools: tuple[Pool, ...], registry: CollectorRegistry | None, watch: bool
    ) -> None:
        self._pools = pools
        self._registry = registry
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] != "http":
            raise RuntimeError(f"metrics_app answers HTTP only, not {scope['type']!r}")
        elif scope["method"] not in ("GET", "HEAD"):
            headers = [(b"allow", b"GET, HEAD"), (b"content-length", b"0")]
            await send(
                {"type": "http.response.start", "status": 405, "headers": headers}
            )
            await send({"type": "http.response.body", "body": b""})
        else:
            await self._answer(scope, send)

    async def _answer(self, scope: Scope, send: Send) -> None:
        loop = asyncio.get_running_loop()
        if self._watch and not any(one.loop is loop for one in watches()):
            watch_loop()
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        encode, kind = exposition.choose_encoder(accept)
        seen = await self._look()
        body = await asyncio.to_thread(encode, _Asked(seen, self._registry))
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        whole = body if scope["method"] == "GET" else b""
        await send({"type": "http.response.body", "body": whole})

    async def _look(self) -> list[Seen]:
        """Look at all pools, each on its own loop."""
        if self._pools:
            asked: list[Any] = list(self._pools)
            found = []
        else:
            asked = lifecycle.all_open()
            found = [Seen(*one, []) for one in lifecycle.closed_stats().items()]
        seen = await asyncio.gather(*map(_look_at_home, asked))
        return _merged([*found, *(one for one in seen if one is not None)])


class _Asked:
    """What an encoder asks: the figures that were seen, and those of a registry."""

    def __init__(self, seen: list[Seen], registry: CollectorRegistry | None) -> None:
        self._seen = seen
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        yield from _families(self._seen, shares=True)
        if self._registry is not None:
            yield from self._registry.collect()


async def _live(receive: Receive, send: Send) -> None:
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


# Looking


def _look(pool: Any) -> Seen:
    return Seen(pool._options.name, pool.stats(), pool.workers())


async def _look_at_home(pool: Any) -> Seen | None:
    """Look at a pool on its own loop; None if that does not answer."""
    home = pool._loop
    if home is None or home is asyncio.get_running_loop():
        return _look(pool)
    answer: Future[Seen] = Future()
    try:
        home.call_soon_threadsafe(lambda: answer.set_result(_look(pool)))
        return await asyncio.wait_for(asyncio.wrap_future(answer), _PATIENCE)
    except (TimeoutError, RuntimeError):  # it is blocked, or closed
        return None


def _merged(seen: list[Seen]) -> list[Seen]:
    """Return one for each name: there may be several pools that have the same."""
    found: dict[str, Seen] = {}
    for name, stats, workers in seen:
        if name in found:
            before = found[name]
            stats, workers = before.stats + stats, before.workers + workers
        found[name] = Seen(name, stats, workers)
    return list(found.values())


# Telling


def _families(seen: list[Seen], *, shares: bool) -> Iterator[Metric]:
    """Yield all figures of pools that were looked at, and of loops that are watched."""
    yield from _of_pools(seen)
    yield from _of_functions(seen)
    yield from _of_workers(seen, shares)
    yield from _of_loops()


def _of_pools(seen: list[Seen]) -> Iterator[Metric]:
    gauges = {
        "offloop_queue_length": ("Jobs that wait for a worker.", "queued"),
        "offloop_queue_bytes": (
            "Bytes of the arguments of pending jobs, where max_pending_bytes counts.",
            "pending_bytes",
        ),
        "offloop_jobs_in_flight": ("Jobs that a worker has.", "in_flight"),
        "offloop_arena_bytes": (
            "Bytes of shared memory that large arguments take.",
            "arena_used",
        ),
        "offloop_arena_limit_bytes": (
            "Bytes of shared memory that large arguments may take.",
            "arena_limit",
        ),
    }
    for name, (text, word) in gauges.items():
        gauge = GaugeMetricFamily(name, text, labels=["pool"])
        for pool in seen:
            gauge.add_metric([pool.name], getattr(pool.stats, word))
        yield gauge
    use = GaugeMetricFamily(
        "offloop_worker_utilization",
        "Share of the workers that are busy.",
        labels=["pool"],
    )
    for pool in seen:
        use.add_metric([pool.name], pool.stats.busy / max(pool.stats.workers, 1))
    yield use
    yield _counter(
        seen, "offloop_workers_started", "Workers started.", "workers_started"
    )
    yield _counter(
        seen, "offloop_workers_lost", "Workers that ended unasked.", "workers_lost"
    )
    restarts = CounterMetricFamily(
        "offloop_worker_restarts",
        "Workers that have ended, by the reason.",
        labels=["pool", "reason"],
    )
    for pool in seen:
        exits = {"crashed": 0, **pool.stats.exits}
        for reason, count in sorted(exits.items()):
            restarts.add_metric([pool.name, reason], count)
    yield restarts


def _counter(seen: list[Seen], name: str, text: str, word: str) -> Metric:
    counter = CounterMetricFamily(name, text, labels=["pool"])
    for pool in seen:
        counter.add_metric([pool.name], getattr(pool.stats, word))
    return counter


def _of_functions(seen: list[Seen]) -> Iterator[Metric]:
    labels = ["pool", "function"]
    ended = CounterMetricFamily(
        "offloop_jobs", "Jobs that have ended.", labels=[*labels, "ending"]
    )
    counts = {
        "retried": CounterMetricFamily(
            "offloop_job_retries", "Further attempts.", labels=labels
        ),
        "timed_out": CounterMetricFamily(
            "offloop_job_timeouts", "Jobs whose time was over.", labels=labels
        ),
        "refused": CounterMetricFamily(
            "offloop_job_refusals",
            "Calls for which there was no room.",
            labels=labels,
        ),
        "slow": CounterMetricFamily(
            "offloop_job_slow_runs", "Runs above slow_job.", labels=labels
        ),
    }
    spread = {
        "wait": HistogramMetricFamily(
            "offloop_job_wait_seconds",
            "From submission until a job left for a worker.",
            labels=labels,
        ),
        "run": HistogramMetricFamily(
            "offloop_job_run_seconds", "In the function.", labels=labels
        ),
        "transfer": HistogramMetricFamily(
            "offloop_job_transfer_seconds",
            "On the way to a worker and back.",
            labels=labels,
        ),
    }
    for pool in seen:
        for function, stats in sorted(pool.stats.functions.items()):
            where = [pool.name, function]
            for ending in _ENDINGS:
                ended.add_metric([*where, ending], getattr(stats, ending))
            for word, counter in counts.items():
                counter.add_metric(where, getattr(stats, word))
            for word, histogram in spread.items():
                durations = getattr(stats, word)
                histogram.add_metric(where, _buckets(durations), durations.total)
    yield ended
    yield from counts.values()
    yield from spread.values()


def _buckets(durations: Durations) -> list[tuple[str, float]]:
    counts = durations.up_to(_BUCKETS)
    found: list[tuple[str, float]] = [
        (str(bound), count) for bound, count in zip(_BUCKETS, counts, strict=True)
    ]
    return [*found, ("+Inf", durations.count)]


def _of_workers(seen: list[Seen], shares: bool) -> Iterator[Metric]:
    workers = GaugeMetricFamily(
        "offloop_workers", "Workers, by what they do.", labels=["pool", "state"]
    )
    labels = ["pool", "worker"]
    rss = GaugeMetricFamily(
        "offloop_worker_rss_bytes",
        "Resident memory of the worker in a place.",
        labels=labels,
    )
    pss = GaugeMetricFamily(
        "offloop_worker_pss_bytes",
        "The same, of shared pages its share only.",
        labels=labels,
    )
    results = GaugeMetricFamily(
        "offloop_worker_results_bytes",
        "Shared memory that the worker in a place keeps for large results.",
        labels=labels,
    )
    for pool in seen:
        states = dict.fromkeys(_STATES, 0)
        held: dict[str, tuple[int, int, int]] = {}
        for one in pool.workers:
            states[one.state] = states.get(one.state, 0) + 1
            place = "spare" if one.slot < 0 else str(one.slot)
            whole, part = _memory(one.pid, shares)
            before = held.get(place, (0, 0, 0))
            held[place] = (
                before[0] + whole,
                before[1] + part,
                before[2] + one.results_bytes,
            )
        for state, count in states.items():
            workers.add_metric([pool.name, state], count)
        for place, figures in held.items():
            for gauge, value in zip((rss, pss, results), figures, strict=True):
                gauge.add_metric([pool.name, place], value)
    yield workers
    yield rss
    if shares:
        yield pss
    yield results


def _memory(pid: int | None, shares: bool) -> tuple[int, int]:
    if pid is None:
        return 0, 0
    return machine.memory_held(pid) if shares else (machine.resident(pid), 0)


def _of_loops() -> Iterator[Metric]:
    lag, blocked = Durations(), 0
    watched = watches()
    for watch in watched:
        lag = lag + watch.lag
        blocked += watch.blocked
    if watched:
        histogram = HistogramMetricFamily(
            "offloop_loop_lag_seconds",
            "How late the event loop was, twenty times a second.",
        )
        histogram.add_metric([], _buckets(lag), lag.total)
        yield histogram
        yield CounterMetricFamily(
            "offloop_loop_blocked",
            "How often something held the event loop for longer than the threshold.",
            blocked,
        )
