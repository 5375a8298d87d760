"""Figures for Prometheus: of requests as they happen, of the pool when it is asked.

All of them live in this process, in a registry of their own. Workers report through
their jobs, so there are no files of dead processes to clean up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    exposition,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

    from offloop.demo.jobs import Encoded
    from offloop.demo.service import Service

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = exposition.CONTENT_TYPE_PLAIN_0_0_4

# When a series began is of no use here, and doubles the text.
disable_created_metrics()  # type: ignore[no-untyped-call]

# From an answer out of a cache to the usual time limit, in seconds.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# The lag that is told is the worst of so many seconds: about what passes between two
# visits of Prometheus, so that none is overlooked.
_LAG_SECONDS = 15.0


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        prefix, registry = "offloop_demo", self.registry
        self._requests = Counter(
            f"{prefix}_requests",
            "Requests answered.",
            ["route", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            f"{prefix}_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self._spans = Histogram(
            f"{prefix}_span_duration_seconds",
            "Parts of the making of an image.",
            ["span"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self._images = Counter(
            f"{prefix}_images", "Images made.", ["format"], registry=registry
        )
        self._bytes_in = Counter(
            f"{prefix}_bytes_in", "Bytes of images received.", registry=registry
        )
        self._bytes_out = Counter(
            f"{prefix}_bytes_out",
            "Bytes of images made.",
            ["format"],
            registry=registry,
        )
        self._problems = Counter(
            f"{prefix}_problems",
            "Requests that ended in a problem, by HTTP status; 499: the client left.",
            ["code"],
            registry=registry,
        )

    def watch(self, service: Service) -> None:
        """Tell of the service's pool, too."""
        self.registry.register(_PoolCollector(service))

    def note_request(self, route: str, code: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(route, code).inc()
        self._seconds.labels(route).observe(seconds)
        if code >= 400:
            self._problems.labels(code).inc()

    def note_image(
        self, received: int, encoded: Encoded, spans: dict[str, float]
    ) -> None:
        """Count an image that was made.

        Args:
            received: bytes that came in.
            encoded: what was made.
            spans: seconds of each part of the making.
        """
        self._images.labels(encoded.format).inc()
        self._bytes_in.inc(received)
        self._bytes_out.labels(encoded.format).inc(len(encoded.data))
        for name, seconds in spans.items():
            self._spans.labels(name).observe(seconds)

    def text(self) -> bytes:
        """Return all figures as Prometheus reads them."""
        return exposition.generate_latest(self.registry)


class _PoolCollector(Collector):
    """Reads the pool when Prometheus asks."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        service = self._service
        stats = service.pool.stats()
        workers = GaugeMetricFamily(
            "offloop_workers", "Workers that are ready.", labels=["state"]
        )
        workers.add_metric(["busy"], stats.busy)
        workers.add_metric(["idle"], stats.idle)
        yield workers
        gauges = {
            "offloop_queue_length": ("Jobs that wait for a worker.", stats.queued),
            "offloop_jobs_in_flight": ("Jobs that a worker has.", stats.in_flight),
            "offloop_worker_utilization": (
                "Share of the workers that are busy.",
                stats.busy / stats.workers if stats.workers else 0.0,
            ),
            "offloop_demo_upload_bytes": (
                "Bytes of uploads that are held in memory.",
                service.budget.used,
            ),
            "offloop_event_loop_lag_seconds": (
                f"The worst delay of the event loop in {_LAG_SECONDS:g} seconds.",
                service.lag.worst(_LAG_SECONDS),
            ),
        }
        for name, (help_text, value) in gauges.items():
            yield GaugeMetricFamily(name, help_text, value)
        jobs = CounterMetricFamily(
            "offloop_jobs", "Jobs that have ended.", labels=["ending"]
        )
        for ending in ("completed", "failed", "cancelled", "timed_out", "lost"):
            jobs.add_metric([ending], getattr(stats, ending))
        yield jobs
        yield CounterMetricFamily(
            "offloop_workers_started", "Workers started.", stats.workers_started
        )
        yield CounterMetricFamily(
            "offloop_workers_lost", "Workers that ended unasked.", stats.workers_lost
        )
