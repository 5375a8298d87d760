"""The public names are those of `__all__`, and each costs only what it needs."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

import offloop

PUBLIC = [
    "Batch",
    "Executor",
    "Job",
    "JobContext",
    "LoopWatch",
    "Offloaded",
    "OffloadedStream",
    "Pool",
    "PoolStats",
    "Progress",
    "Recycle",
    "Results",
    "Stream",
    "configure",
    "current_job",
    "lifespan",
    "offload",
    "progress",
    "run",
    "watch_loop",
]

MODULES = [
    "offloop.executor",
    "offloop.errors",
    "offloop.options",
    "offloop.context",
    "offloop.loop_watch",
    "offloop.pool",
    "offloop.program",
    "offloop.showing",
    "offloop.web",
]


def run(script):
    """Run a script in a fresh interpreter and return the lines that it printed."""
    command = [sys.executable, "-c", script]
    return subprocess.check_output(command, text=True).splitlines()


def test_the_public_names_are_these():
    assert sorted(offloop.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_each_public_name_loads_by_itself(name):
    home, bound = run(
        f"import offloop\n"
        f"print(offloop.{name}.__module__)\n"
        f"print({name!r} in vars(offloop))\n"
    )
    assert home.startswith("offloop.")
    assert bound == "True"  # the next access does not come by __getattr__


def test_star_import_brings_exactly_the_public_names():
    (names,) = run(
        "before = set(dir())\n"
        "from offloop import *\n"
        "print(*sorted(set(dir()) - before - {'before'}))"
    )
    assert names.split() == PUBLIC


def test_dir_lists_public_names_before_they_are_loaded():
    (names,) = run("import offloop; print(*dir(offloop))")
    assert set(PUBLIC) <= set(names.split())
    assert "__version__" in names.split()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Polo'"):
        offloop.Polo  # noqa: B018 - the access is the test


def test_importing_offloop_alone_loads_nothing_else():
    (loaded,) = run(
        "import sys\n"
        "before = set(sys.modules)\n"
        "import offloop\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    assert set(loaded.split()) - {"__future__"} == {"offloop"}


@pytest.mark.parametrize("name", MODULES)
def test_the_names_a_module_declares_exist(name):
    module = import_module(name)
    assert [public for public in module.__all__ if not hasattr(module, public)] == []


def test_no_module_shares_its_name_with_a_public_name():
    # Importing a submodule binds its name on the package and would hide the public one.
    shadowed = [name for name in PUBLIC if _is_module(f"offloop.{name}")]
    assert shadowed == []


def _is_module(name):
    try:
        import_module(name)
    except ModuleNotFoundError:
        return False
    return True
