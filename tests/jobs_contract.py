"""Functions that the contract of the engines sends, in a module that imports little."""

from __future__ import annotations

import asyncio

import jobs


async def loop_asynchronously(reached, stopped):
    """Wait for ever, and tell when that is over."""
    try:
        jobs.reach(reached)
        await asyncio.Event().wait()
    finally:
        jobs.reach(stopped)


def loop(reached, stopped):
    """Compute for ever, and tell when that is over."""
    try:
        jobs.reach(reached)
        while True:
            pass
    finally:
        jobs.reach(stopped)


def endless(closed):
    number = 0
    try:
        while True:
            yield number
            number += 1
    finally:
        jobs.reach(closed)


def double_all(items):
    return [2 * item for item in items]
