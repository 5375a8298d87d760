"""OpenTelemetry's context: the span and the baggage that are current.

It travels in the W3C formats, `traceparent`, `tracestate` and `baggage`, whatever the
program uses on its own wires. Spans that a job makes are children of the span in which
it was submitted.

OpenTelemetry is never imported here unless the process has done so already.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs a worker milliseconds at start
    from typing import Any, TypeAlias

    Carrier: TypeAlias = tuple[tuple[str, str], ...]

__all__ = ["MODULES", "attach", "capture"]

#: whoever uses the context has one of these
MODULES = ("opentelemetry.trace", "opentelemetry.baggage")

#: the latest context that was captured, and what came of it
_latest: tuple[Any, Carrier] = None, ()


def capture() -> Carrier:
    """Return what is current here, nothing where OpenTelemetry is not in use."""
    global _latest
    if MODULES[0] not in sys.modules and MODULES[1] not in sys.modules:
        return ()
    from opentelemetry import context

    current = context.get_current()
    if not current:
        return ()
    if current is not _latest[0]:  # contexts are immutable
        carrier: dict[str, str] = {}
        for propagator in _propagators():
            propagator.inject(carrier, current)
        _latest = current, tuple(carrier.items())
    return _latest[1]


def attach(carrier: Carrier) -> None:
    """Make current what another process has captured."""
    from opentelemetry import context

    current = context.get_current()
    for propagator in _propagators():
        current = propagator.extract(dict(carrier), current)
    context.attach(current)


def _propagators() -> tuple[Any, ...]:
    from opentelemetry.baggage.propagation import W3CBaggagePropagator
    from opentelemetry.trace.propagation.tracecontext import (
        TraceContextTextMapPropagator,
    )

    return TraceContextTextMapPropagator(), W3CBaggagePropagator()
