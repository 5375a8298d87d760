"""Has a context variable, and is imported by a job only when it runs."""

from __future__ import annotations

from contextvars import ContextVar

late: ContextVar[str] = ContextVar("late", default="not seen")
