"""Payloads of any size, kind and fate: what arrives is what was sent, and stays so.

The suite does it for a moment; ``make stress`` for ten minutes.
"""

from __future__ import annotations

import asyncio
import os
import random
import zlib
from collections import deque

import numpy as np
import pytest

import jobs
from offloop import Pool
from offloop.errors import WorkerLost

SECONDS = float(os.environ.get("OFFLOOP_STRESS", "2"))
SEED = int(os.environ.get("OFFLOOP_STRESS_SEED", random.randrange(2**32)))

KINDS = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": lambda data: memoryview(bytearray(data)),
    "array": lambda data: np.frombuffer(bytearray(data), "u1"),
    "read-only array": lambda data: np.frombuffer(data, "u1"),
}


class Caller:
    """Sends one payload after the other, and keeps some of what comes back."""

    def __init__(self, pool: Pool, number: int) -> None:
        self.pool = pool
        self.random = random.Random(SEED + number)
        #: results that are still looked at, and their checksums
        self.kept: deque[tuple[object, int]] = deque(maxlen=5)
        self.sent = 0

    def payload(self) -> bytes:
        size = int(2 ** self.random.uniform(0, 23))
        piece = self.random.randbytes(min(size, 4099))
        return (piece * (size // len(piece) + 1))[:size]

    async def send_until(self, end: float) -> None:
        while asyncio.get_running_loop().time() < end:
            await self.send()
            self.sent += 1
            for result, checksum in self.kept:
                assert zlib.crc32(result) == checksum

    async def send(self) -> None:
        data = self.payload()
        make = self.random.choice(list(KINDS.values()))
        fate = self.random.choices(
            ["end", "die once", "die", "be cancelled"], [60, 3, 1, 3]
        )[0]
        arguments = make(data), zlib.crc32(data), fate
        run = self.pool.options(retries=1, on_cancel="kill").run
        if fate == "be cancelled":
            await self.cancel(asyncio.create_task(run(jobs.invert, *arguments)))
            return
        try:
            result = await run(jobs.invert, *arguments)
        except WorkerLost:
            assert fate == "die"
            return
        assert fate != "die"
        assert type(result) is type(arguments[0])
        checksum = zlib.crc32(data.translate(jobs.INVERSE))
        assert zlib.crc32(result) == checksum
        assert zlib.crc32(arguments[0]) == arguments[1]  # ours is as it was
        if self.random.random() < 0.3:
            self.kept.append((result, checksum))

    async def cancel(self, task: asyncio.Task) -> None:
        for _ in range(self.random.randrange(5)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.slow
@pytest.mark.timeout(60 + 2 * SECONDS)
async def test_every_payload_arrives_as_it_was_sent():
    print(f"OFFLOOP_STRESS_SEED={SEED}")  # shown if it fails
    async with Pool(2) as pool:
        callers = [Caller(pool, number) for number in range(6)]
        end = asyncio.get_running_loop().time() + SECONDS
        async with asyncio.TaskGroup() as group:
            for caller in callers:
                group.create_task(caller.send_until(end))
        assert pool.stats().workers_lost > 0
    for caller in callers:
        assert caller.sent > 0
        for result, checksum in caller.kept:
            assert zlib.crc32(result) == checksum
