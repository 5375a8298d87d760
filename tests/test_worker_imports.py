"""A worker that has not run user code has loaded almost nothing.

Each module that it loads costs time when a pool starts, and memory in every worker.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# cloudpickle is loaded by the first call that the C pickler cannot take.
HEAVY = [
    "argparse",
    "asyncio",
    "cloudpickle",
    "concurrent.futures",
    "dataclasses",
    "inspect",
    "logging",
    "multiprocessing",
    "numpy",
    "offloop.core",
    "offloop.decorator",
    "offloop.engines",
    "offloop.options",
    "offloop.pool",
    "offloop.supervisor",
    "shutil",
    "subprocess",
    "tempfile",
]


# What pyzmq itself loads with some versions of Python: not ours to refuse.
TOLERATED = {"inspect"}


# What a worker imports with functions of the user's.
USERS = """
from offloop import context, current_job, offload
context.set_source(lambda: None)

@offload
def plain(): ...

@offload(timeout=1.0)
def stream():
    yield
"""


def load(what):
    """Return the names of the modules that an interpreter has after some imports."""
    script = (
        "import sys, zmq\n"
        f"tolerated = {TOLERATED} & set(sys.modules)\n"
        f"{what}\n"
        "print(*sorted(set(sys.modules) - tolerated), sep='\\n')\n"
    )
    environment = {  # measuring coverage loads modules of its own
        key: value for key, value in os.environ.items() if "COVERAGE" not in key
    }
    command = [sys.executable, "-c", script]
    return subprocess.check_output(command, text=True, env=environment).splitlines()


@pytest.fixture(scope="module")
def loaded():
    """Names of the modules in an interpreter that is ready to be a worker."""
    return load("import offloop.forkserver, offloop.worker")


@pytest.mark.parametrize("module", HEAVY)
def test_a_worker_does_not_load(loaded, module):
    assert module not in loaded


def test_a_decorated_function_brings_no_pool_to_its_worker():
    loaded = load("import offloop.forkserver" + USERS)
    assert "offloop.decorator" in loaded
    assert not ({*HEAVY} - {"offloop.decorator"}) & {*loaded}


def test_a_worker_loads_what_it_needs(loaded):
    assert {"offloop.worker", "offloop.wire.channel", "zmq"} <= set(loaded)
