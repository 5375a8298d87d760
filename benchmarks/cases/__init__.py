"""What is measured, one file each: a `measure` that runs in a fresh process."""

from __future__ import annotations

from importlib import import_module

#: in the order of the tables
MODULES = (
    "round_trip",
    "throughput",
    "mapping",
    "short_jobs",
    "burst",
    "payloads",
    "lag",
    "images",
    "start",
    "recovery",
    "memory",
    "limits",
    "crossover",
    "gil",
    "scaling",
)


def everything() -> dict:
    """Return all cases by name."""
    found = {}
    for module in MODULES:
        for case in import_module(f"cases.{module}").CASES:
            found[case.name] = case
    return found
