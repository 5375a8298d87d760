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
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from offloop.demo.problems import kind_of
from offloop.telemetry import PoolCollector

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

# Answers that cost nothing but the request, and why.
_BUSY = 429
_REASONS = {
    408: "slow-upload",
    413: "too-large",
    _BUSY: "busy",
    503: "not-available",
}

# The lag that is told is the worst of so many seconds: about what passes between two
# visits of Prometheus, so that none is overlooked.
_LAG_SECONDS = 15.0


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        #: requests that were turned away because the server was busy
        self.refused = 0
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
            f"{prefix}_images",
            "Images made.",
            ["format_in", "format_out"],
            registry=registry,
        )
        self._bytes_in = Counter(
            f"{prefix}_bytes_in",
            "Bytes of images received that were made into others.",
            ["format"],
            registry=registry,
        )
        self._bytes_out = Counter(
            f"{prefix}_bytes_out",
            "Bytes of images made.",
            ["format"],
            registry=registry,
        )
        self._errors = Counter(
            f"{prefix}_errors",
            "Requests that ended in a problem, by its title.",
            ["type"],
            registry=registry,
        )
        self._rejected = Counter(
            f"{prefix}_rejected",
            "Requests turned away without any work, by the reason.",
            ["reason"],
            registry=registry,
        )
        for reason in _REASONS.values():
            self._rejected.labels(reason)

    def watch(self, service: Service) -> None:
        """Tell of the service's pool, too."""
        self.registry.register(_PoolCollector(service))

    def note_request(self, route: str, code: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(route, code).inc()
        self._seconds.labels(route).observe(seconds)
        if code >= 400:
            self._errors.labels(kind_of(code)).inc()
        if code == _BUSY:
            self.refused += 1
        if code in _REASONS:
            self._rejected.labels(_REASONS[code]).inc()

    def note_image(
        self, received: int, encoded: Encoded, spans: dict[str, float]
    ) -> None:
        """Count an image that was made.

        Args:
            received: bytes that came in.
            encoded: what was made.
            spans: seconds of each part of the making.
        """
        origin = encoded.origin.lower()
        self._images.labels(origin, encoded.format).inc()
        self._bytes_in.labels(origin).inc(received)
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
        for metric in PoolCollector(service.pool).collect():
            if metric.name != "offloop_queue_bytes":  # here they are those of uploads
                yield metric
        yield GaugeMetricFamily(
            "offloop_queue_bytes",
            "Bytes of uploads whose images wait or are being made.",
            service.budget.used,
        )
        yield GaugeMetricFamily(
            "offloop_event_loop_lag_seconds",
            f"The worst delay of the event loop in {_LAG_SECONDS:g} seconds.",
            service.lag.worst(_LAG_SECONDS),
        )
