"""Nothing outlives the program, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

_PROGRAM = """
import asyncio, os, signal, sys, itertools
from offloop import Pool, offload
import jobs

async def main():
    pool = Pool(2, preload={preload})
    if {wait}:
        await pool.start()
    else:
        pool._begin()
    going = [pool.submit({function}, {arguments}) for _ in range(2)]
    if {wait}:
        await pool.ready()
        await asyncio.sleep(0)
    print("running", flush=True)
    {ending}
    await asyncio.gather(*going)

asyncio.run(main())
"""


def run(
    folder,
    function="sum",
    arguments="itertools.repeat(0)",
    ending="",
    wait=True,
    preload=(),
):
    code = _PROGRAM.format(
        function=function,
        arguments=arguments,
        ending=ending,
        wait=wait,
        preload=preload,
    )
    modules = folder.with_name("modules")
    path = os.pathsep.join([*(p for p in sys.path if p), str(modules)])
    environment = {**os.environ, "PYTHONPATH": path, "OFFLOOP_RUNTIME_DIR": str(folder)}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def descendants(pid):
    return psutil.Process(pid).children(recursive=True)


def assert_gone(processes, folder):
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
    assert list(folder.iterdir()) == []


def wait_until_empty(folder):
    """Wait for the forkserver, which tidies up after its parent is gone."""
    deadline = time.monotonic() + 10
    while os.listdir(folder):
        assert time.monotonic() < deadline, os.listdir(folder)
        time.sleep(0.002)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_killing_the_program_ends_workers_in_an_endless_c_loop(tmp_path, gate, signum):
    reached = gate()
    program = run(tmp_path, "jobs.loop_in_c", repr(str(reached)))
    assert program.stdout.readline() == "running\n"
    with open(str(reached)) as file:  # at least one is in the loop
        assert file.readline()
    family = descendants(program.pid)
    assert len(family) == 3
    program.send_signal(signum)
    program.communicate()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive
    rest = [path for path in tmp_path.iterdir() if not path.is_fifo()]
    assert rest == []


@pytest.mark.parametrize("way", ["session", "twice", "forks"])
def test_what_jobs_have_sent_apart_ends_with_the_program(tmp_path, pipe, way):
    reached, never = pipe(), pipe()
    arguments = f"{reached.path!r}, {never.path!r}, {way!r}"
    program = run(tmp_path, "jobs.spawn_apart", arguments)
    assert program.stdout.readline() == "running\n"
    apart = [psutil.Process(reached.reached())]
    program.kill()
    program.communicate()
    _, alive = psutil.wait_procs(apart, timeout=10)
    assert not alive


@pytest.mark.parametrize("victims", [slice(0, 1), slice(1, 2), slice(0, 3)])
def test_stopped_processes_end_with_the_program(tmp_path, victims):
    program = run(tmp_path, "max", "range(10)", "await asyncio.sleep(600)")
    assert program.stdout.readline() == "running\n"
    family = descendants(program.pid)
    for process in family[victims]:
        process.send_signal(signal.SIGSTOP)
    program.kill()
    program.communicate()
    assert_gone(family, tmp_path)


def test_a_forked_child_that_lives_on_does_not_keep_the_workers(tmp_path):
    ending = "os.fork() or os.execvp('sleep', ['sleep', '600'])"
    program = run(tmp_path, "max", "range(10)", ending)
    assert program.stdout.readline() == "running\n"
    program.wait(20)
    wait_until_empty(tmp_path)
    os.killpg(program.pid, signal.SIGKILL)
    program.communicate()


def test_a_program_that_forgets_to_close_leaves_nothing(tmp_path):
    program = run(tmp_path, "max", "range(10)")
    _, errors = program.communicate(timeout=30)
    assert program.returncode == 0
    assert "Traceback" not in errors
    wait_until_empty(tmp_path)


def test_a_program_that_ends_in_the_middle_of_the_start_leaves_nothing(tmp_path):
    program = run(tmp_path, "max", "range(10)", "os._exit(3)", wait=False)
    assert program.stdout.readline() == "running\n"
    program.communicate()
    assert program.returncode == 3


def test_a_forkserver_that_never_stops_importing_ends_with_the_program(tmp_path, gate):
    reached = gate()
    modules, folder = tmp_path / "modules", tmp_path / "run"
    modules.mkdir()
    folder.mkdir()
    text = f"import jobs\njobs.loop_in_c({str(reached)!r})"
    (modules / "endless.py").write_text(text)
    ending = "await asyncio.sleep(600)"
    program = run(folder, "max", "range(10)", ending, wait=False, preload=["endless"])
    assert program.stdout.readline() == "running\n"
    with open(str(reached)) as file:
        assert file.readline()
    family = descendants(program.pid)
    assert len(family) == 2  # the forkserver, and what looks after it
    program.kill()
    program.communicate()
    assert_gone(family, folder)


def test_ctrl_c_ends_the_program_without_noise_from_workers(tmp_path):
    program = run(tmp_path, "sum", "itertools.repeat(0)")
    assert program.stdout.readline() == "running\n"
    family = descendants(program.pid)
    os.killpg(program.pid, signal.SIGINT)
    _, errors = program.communicate(timeout=30)
    assert errors.count("Traceback (most recent call last)") <= 2  # the program's own
    assert "worker" not in errors
    assert_gone(family, tmp_path)
