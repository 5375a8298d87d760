"""Spans of jobs for OpenTelemetry: what the caller's trace shows of its calls.

    (the caller's span)
    ├── offloop resize              from submission until the result was back
    │   ├── offloop.queue           until it left for a worker
    │   └── offloop.run             in the function
    └── (spans that the job makes)

They are made when a job has ended, of the times that are known of it anyway, and only
for jobs that were submitted in a span which is recorded. OpenTelemetry is not imported
here: `is_in_use` asks whether the program has done so.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["is_in_use", "record"]

_API = "opentelemetry.trace"


def is_in_use() -> bool:
    """Tell whether the program has spans at all."""
    return _API in sys.modules


def record(
    carrier: Sequence[tuple[str, str]],
    function: str,
    whole: tuple[float, float],
    stages: Mapping[str, tuple[float, float]],
    attributes: Mapping[str, str | int],
    error: BaseException | None = None,
) -> None:
    """Make the spans of one job, if the span in which it was submitted is recorded.

    Args:
        carrier: what has travelled of its caller's context, as the W3C has it.
        function: its name.
        whole: when the job began and ended, in monotonic seconds.
        stages: the same for each stage that it has reached, by name.
        attributes: what is told of it besides.
        error: with which it has ended, if it has.
    """
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import (
        TraceContextTextMapPropagator,
    )

    caller = TraceContextTextMapPropagator().extract(dict(carrier))
    if not trace.get_current_span(caller).get_span_context().trace_flags.sampled:
        return
    tracer = trace.get_tracer("offloop")
    # Clocks of one process: what differs between them is when they began.
    ahead = time.time_ns() - time.monotonic_ns()

    def at(seconds: float) -> int:
        return int(seconds * 1e9) + ahead

    span = tracer.start_span(
        f"offloop {function}",
        caller,
        attributes=dict(attributes),
        start_time=at(whole[0]),
    )
    own = trace.set_span_in_context(span, caller)
    for name, (began, ended) in stages.items():
        stage: Any = tracer.start_span(f"offloop.{name}", own, start_time=at(began))
        stage.end(at(ended))
    if error is not None:
        span.record_exception(error, timestamp=at(whole[1]))
        status = trace.Status(
            trace.StatusCode.ERROR, f"{type(error).__name__}: {error}"
        )
        span.set_status(status)
    span.end(at(whole[1]))
