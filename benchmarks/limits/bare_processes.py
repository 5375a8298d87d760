"""As many processes as cores that encode images and do nothing else.

    python benchmarks/limits/bare_processes.py

Without a server, a client, or anything to share, and with an allocator that keeps what
is freed: a fresh process gives it back to the kernel, and takes it again, with every
image.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAME = "ceiling: bare processes"
KEEP = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}


def measure(case: str, seconds: float) -> dict:
    from cases.images import photograph
    from harness.figures import CORES

    with tempfile.NamedTemporaryFile() as photo:
        photo.write(photograph())
        photo.flush()
        command = [sys.executable, ROOT / "image_job.py", photo.name, str(seconds)]
        running = [
            subprocess.Popen(
                command, stdout=subprocess.PIPE, env={**os.environ, **KEEP}
            )
            for _ in range(CORES)
        ]
        return {"rate": sum(float(one.communicate()[0]) for one in running)}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    print(measure("images", 3.0))
