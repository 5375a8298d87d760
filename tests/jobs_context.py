"""Context variables, and jobs that look at them."""

from __future__ import annotations

import sys
from contextvars import ContextVar

request: ContextVar[str] = ContextVar("request", default="none")
user: ContextVar[object] = ContextVar("user", default=None)
stuck: ContextVar[object] = ContextVar("stuck", default=None)
untouched: ContextVar[str] = ContextVar("untouched", default="as it was")


class Holder:
    """Has a variable that is no module's global."""

    hidden: ContextVar[str] = ContextVar("hidden", default="not seen")


def see(*_):
    return request.get()


def see_all():
    return request.get(), user.get(), untouched.get(), Holder.hidden.get()


def change(value):
    before = request.get()
    request.set(value)
    return before


async def see_later():
    import asyncio

    async def inner():
        return request.get()

    return await asyncio.create_task(inner())


def see_each(items):
    return [(request.get(), item) for item in items]


def see_in_a_late_import(module):
    """Import a module, and return its variable; "had it" if it was here already."""
    from importlib import import_module

    if module in sys.modules:
        return "had it"
    return import_module(module).late.get()


def fail_and_see():
    raise ValueError(request.get())


def see_span():
    from opentelemetry import baggage, trace

    span = trace.get_current_span().get_span_context()
    return f"{span.trace_id:032x}", f"{span.span_id:016x}", baggage.get_baggage("who")


def has_telemetry():
    return "opentelemetry" in sys.modules
