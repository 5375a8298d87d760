"""The directory of a pool's sockets goes with its process, or with the next pool."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import psutil

from offloop import folders
from offloop.folders import Folder

_PROGRAM = """
import asyncio
from offloop import Pool

async def main():
    async with Pool(1) as pool:
        await pool.ready()
        print("ready", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


def age(path):
    """Let a directory be a day old."""
    os.utime(path, (0, 0))


def test_only_what_is_abandoned_is_removed(own_runtime, monkeypatch):
    mine, others = Folder(), Folder()
    gone = Folder()
    os.close(gone._descriptor)  # as the kernel does for a process that was killed
    young = Folder()
    os.close(young._descriptor)
    foreign, link = f"{own_runtime}/foreign", f"{own_runtime}/offloop-pool-link"
    os.mkdir(foreign)
    os.symlink(foreign, link)
    open(f"{gone.path}/1", "w").close()
    for path in (mine.path, others.path, gone.path, foreign):
        age(path)
    folders.remove_abandoned(mine.path)
    left = {mine.path, others.path, young.path, foreign, link}
    assert {entry.path for entry in os.scandir(own_runtime)} == left
    monkeypatch.setattr(os, "geteuid", lambda: -1)
    age(young.path)
    folders.remove_abandoned(mine.path)
    assert os.path.isdir(young.path), "it belongs to another user"
    for one in (mine, others):
        one.remove()
    for path in (young.path, foreign):
        os.rmdir(path)
    os.unlink(link)


def test_a_place_that_cannot_be_looked_at_is_left_alone():
    folders.remove_abandoned("/no/such/folder")


def test_what_is_left_when_all_are_killed_at_once_goes_with_the_next_pool(own_runtime):
    def start():
        command = [sys.executable, "-c", _PROGRAM]
        pipe = subprocess.PIPE
        program = subprocess.Popen(command, stdout=pipe, start_new_session=True)
        assert program.stdout.readline() == b"ready\n"
        return program

    with start() as program:
        (left,) = os.listdir(own_runtime)
        family = psutil.Process(program.pid).children(recursive=True)
        for process in family:
            process.suspend()  # its forkserver does not tidy up
        os.killpg(program.pid, signal.SIGKILL)
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, 30)
    assert os.listdir(own_runtime) == [left]
    age(f"{own_runtime}/{left}")
    with start() as program:
        while left in os.listdir(own_runtime):
            assert program.poll() is None
        program.terminate()
    while os.listdir(own_runtime):
        pass
