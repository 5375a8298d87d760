"""Whose request it is: its id and its place in a trace, for logs here and in workers.

Both are context variables, so each job sees those of the request that it is for, in
whatever process it runs. Where OpenTelemetry is in use, the caller's span becomes the
current one, unless a middleware has begun one already. It is never imported for that.

A worker that unpickles them imports nothing: this module is of the standard library.
"""

from __future__ import annotations

import os
import re
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["begin", "request_id", "traceparent"]

#: what the client calls its request, or a name that was made for it; "" outside of one
request_id: ContextVar[str] = ContextVar("request_id", default="")

#: the caller's span, as W3C Trace Context writes it; "" if it said none
traceparent: ContextVar[str] = ContextVar("traceparent", default="")

# What a client may choose: it ends up in headers and logs.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

# Version, trace, span and flags. Neither of the two in the middle may be all zeros, and
# the version ff is none.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


def begin(headers: Mapping[str, str]) -> str:
    """Note whose request begins in this context, and return its id.

    Args:
        headers: of the request. What is not as it should be counts as not given.
    """
    mine = headers.get("x-request-id", "")
    if not _REQUEST_ID.fullmatch(mine):
        mine = os.urandom(16).hex()
    request_id.set(mine)
    span = headers.get("traceparent", "")
    if _TRACEPARENT.fullmatch(span):
        traceparent.set(span)
        if "opentelemetry.trace" in sys.modules:
            _make_current(headers)
    return mine


def _make_current(headers: Mapping[str, str]) -> None:
    from opentelemetry import context, trace
    from opentelemetry.trace.propagation.tracecontext import (
        TraceContextTextMapPropagator,
    )

    if not trace.get_current_span().get_span_context().is_valid:
        context.attach(TraceContextTextMapPropagator().extract(dict(headers)))
