"""Images over HTTP, end to end: how many a second, and does the server still answer?

The load comes from this process, which does next to nothing for it; still, what it
takes is missing elsewhere, for all servers alike.
"""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from time import perf_counter

from harness import node
from harness.figures import CORES, Case, Metric, percentile
from harness.http_client import Load, start_server, watch
from harness.turns import ROOT
from peers import CannotDo

SHARP = "sharp server (Node)"
PATH = "/encode?f=webp&w=800&q=80"

CASES = (
    Case(
        name="images",
        title="A photograph of 1600x1200 to WebP of 800x600, over HTTP, all cores",
        module=__name__,
        metrics=(
            Metric("rate", "images a second", "/s"),
            Metric("p99", "/healthz meanwhile, p99"),
            Metric("worst", "at worst"),
        ),
        contenders=(
            "offloop",
            "inline",
            "asyncio.to_thread",
            "ProcessPoolExecutor",
            "loky",
            SHARP,
        ),
        floors=("bare_processes",),
        seconds=3.0,
        weight=2.5,
    ),
)


async def measure(contender, seconds):
    server, port = await start_server(command(contender), dict(os.environ))
    try:
        return await measure_server(port, photograph(), seconds)
    finally:
        server.send_signal(signal.SIGTERM)
        await server.wait()


def command(contender) -> list[str]:
    if contender != SHARP:
        return [sys.executable, str(ROOT / "image_server.py"), contender.name]
    try:
        return node.command("sharp_server.mjs")
    except node.Missing as error:
        raise CannotDo(str(error)) from None


def photograph() -> bytes:
    """Return the photograph of the demo, as a JPEG."""
    from offloop.demo.samples import draw

    file = io.BytesIO()
    draw("photo").image.save(file, "JPEG", quality=92)
    return file.getvalue()


async def measure_server(port: int, photo: bytes, seconds: float) -> dict:
    load = Load(port, PATH, photo)
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(load.client()) for _ in range(2 * CORES)]
        await load.running.wait()
        await asyncio.sleep(seconds / 4)  # all workers have done one
        before, began = load.images, perf_counter()
        answers = await watch(port, seconds)
        rate = (load.images - before) / (perf_counter() - began)
        for client in clients:
            client.cancel()
    return {"rate": rate, "p99": percentile(answers, 99), "worst": max(answers)}
