"""50,000 jobs that are submitted in one statement."""

from __future__ import annotations

import asyncio
from time import perf_counter

import workloads
from harness.figures import CORES, Case, Metric, percentile
from harness.ticker import Ticker
from peers import CannotDo

JOBS = 50_000
PATIENCE = 15.0

CASES = (
    Case(
        name="burst",
        title=f"{JOBS:,} jobs submitted in one statement, {CORES} workers",
        module=__name__,
        metrics=(
            Metric("submit", "a submit"),
            Metric("p99", "loop late after it, p99"),
            Metric("worst", "at worst"),
            Metric("rate", "jobs a second", "/s"),
        ),
        seconds=None,
        heavy=False,
        timeout=40.0,
    ),
)


async def measure(contender):
    if contender.batches:
        raise CannotDo("takes jobs in batches only")
    async with contender(CORES) as peer:
        await check_pace(peer)
        return await measure_burst(peer)


async def check_pace(peer):
    """Leave out those who would need minutes for it."""
    began = perf_counter()
    await peer.gather(workloads.nothing, range(500))
    whole = (perf_counter() - began) * JOBS / 500
    if whole > PATIENCE:
        raise CannotDo(f"would take about {whole:.0f} s")


async def measure_burst(peer):
    waiting, ended = JOBS, asyncio.Event()

    def note_end(job):
        nonlocal waiting
        waiting -= 1
        if not waiting:
            ended.set()

    async with Ticker() as ticker:
        began = perf_counter()
        jobs = [peer.submit(workloads.nothing, number) for number in range(JOBS)]
        submitted = perf_counter()
        for job in jobs:
            job.add_done_callback(note_end)
        ticker.begin()
        again = perf_counter()
        await ended.wait()
        took = perf_counter() - again
    return {
        "submit": (submitted - began) / JOBS,
        "p99": percentile(ticker.late, 99),
        "worst": max(ticker.late),
        "rate": JOBS / took,
    }
