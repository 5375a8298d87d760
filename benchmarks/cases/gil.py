"""Work that releases the GIL while it lasts: threads do that on all cores as well."""

from __future__ import annotations

import payload_jobs as jobs
from harness import flow
from harness.figures import CORES, Case, Metric

CASES = (
    Case(
        name="gil",
        title=f"C code that releases the GIL, {CORES} workers, {2 * CORES} in flight",
        module=__name__,
        metrics=(
            Metric("sha256", "sha256 of 1 MB", "/s"),
            Metric("zlib", "zlib of 1 MB", "/s"),
            Metric("webp", "Pillow to WebP, 800x600", "/s"),
        ),
        contenders=(
            "offloop",
            "inline",
            "asyncio.to_thread",
            "ProcessPoolExecutor",
        ),
        seconds=0.6,
    ),
)


async def measure(contender, seconds):
    megabyte, pixels = jobs.some_bytes(1024 * 1024), jobs.some_bytes(800 * 600 * 3)
    async with contender(CORES) as peer:
        return {
            name: await flow.rate(peer, function, data, 2 * CORES, seconds)
            for name, function, data in (
                ("sha256", jobs.sha256, megabyte),
                ("zlib", jobs.compress, megabyte),
                ("webp", jobs.webp, pixels),
            )
        }
