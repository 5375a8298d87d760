"""What the server names and workers run."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module

from offloop.demo import jobs
from offloop.demo.recipe import Recipe


def test_the_heavy_part_is_imported_only_where_the_work_is():
    code = (
        "import sys, offloop.demo.web\n"
        "heavy = {'PIL', 'numpy', 'offloop.demo.images'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_job_encodes(picture):
    assert jobs.encode(picture(), Recipe("png"), 10_000).format == "png"


def test_a_job_draws():
    drawn = jobs.draw("graphic", Recipe("webp", width=100), 10_000_000)
    assert (drawn.format, drawn.width, drawn.source) == ("webp", 100, (1200, 800))
    assert drawn.decode > 0


def test_what_workers_load_beforehand_exists():
    assert [import_module(name).__name__ for name in jobs.PRELOAD] == list(jobs.PRELOAD)


def test_a_job_describes(picture):
    assert jobs.describe(picture("PNG"), 50_000_000)["format"] == "PNG"


def test_a_worker_says_what_it_can_do():
    able = jobs.abilities()
    assert {"jpeg", "png", "webp", "avif"} <= set(able.writes)
    assert able.versions["Pillow"]
    assert able.pid == os.getpid()
