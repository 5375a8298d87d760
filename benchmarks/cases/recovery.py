"""From the kill of a busy worker to the next result, of a pool with one worker."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import tempfile
from pathlib import Path
from time import perf_counter

import workloads
from harness.figures import Case, Metric
from peers import CannotDo

PATIENCE = 10.0

CASES = (
    Case(
        name="recovery",
        title="From the kill of a busy worker to the next result, 1 worker",
        module=__name__,
        metrics=(
            Metric("next", "next result"),
            Metric("told", "the caller of the lost job is told"),
        ),
        floors=("fork",),
        seconds=None,
        arguments={"times": 5},
    ),
)


async def measure(contender, times):
    if not contender.processes:
        raise CannotDo("runs jobs in this process: a crash would end it")
    async with contender(1) as peer:
        with tempfile.TemporaryDirectory() as folder:
            found = [await recover(peer, Path(folder, str(n))) for n in range(times)]
    following, told = zip(*found, strict=True)
    return {
        "next": statistics.median(following),
        "told": "never" if None in told else statistics.median(told),
    }


async def recover(peer, note):
    os.mkfifo(note)
    lost = asyncio.ensure_future(peer.call(workloads.wait_once, str(note)))
    ended = []
    lost.add_done_callback(lambda _: ended.append(perf_counter()))
    victim = int(await asyncio.to_thread(note.read_text))  # once it is written
    await asyncio.sleep(0.05)
    began = perf_counter()
    os.kill(victim, signal.SIGKILL)
    try:
        async with asyncio.timeout(PATIENCE):
            await peer.call(workloads.nothing, 1)
            took = perf_counter() - began
    except TimeoutError:
        raise CannotDo(f"has no result {PATIENCE:g} s later") from None
    except Exception as error:
        raise CannotDo(f"the pool is broken ({type(error).__name__})") from None
    await asyncio.wait([lost], timeout=1)
    lost.cancel()  # some never end it
    return took, ended[0] - began if ended else None
