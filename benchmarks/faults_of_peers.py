"""The same faults for offloop and for other pools of processes.

    python benchmarks/faults_of_peers.py

- One of forty jobs kills its process: how many of the others return, and does the pool
  work afterwards?
- Both processes are in the way, each for another reason: a loop in Python that is
  cancelled after a second; a loop in C, which never lets go of the interpreter, or a
  process that has been stopped (SIGSTOP), with a time limit of a second if the pool
  has any. Does the pool work within five seconds afterwards?
- The program is killed: how many processes live a second later?

Pools that are not installed (loky, pebble) are left out. Exits with 1 if offloop loses
anything.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress

import psutil

JOBS = 40
PATIENCE = 20.0

#: why both processes are in the way, and the title of the column
IN_THE_WAY = {"python": "Python loop", "c": "C loop", "stopped": "stopped"}

PRELUDE = f"""
import asyncio, concurrent.futures, itertools, os, signal, sys, time
JOBS = {JOBS}
def work(number, fatal):
    if number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.005)
    return number
def python(_):
    while True:
        pass
def c(_):
    sum(itertools.repeat(0))
def stopped(_):
    os.kill(os.getpid(), signal.SIGSTOP)
WAYS = {{"python": python, "c": c, "stopped": stopped}}
"""

OFFLOOP = """
from offloop import Pool
async def main(scene):
    async with Pool(2) as pool:
        if scene == "crash":
            jobs = [pool.submit(work, n, 7) for n in range(JOBS)]
            await asyncio.wait(jobs)
            print(sum(job.exception() is None for job in jobs))
            print(await pool.run(work, 1, 0) == 1)
        elif scene == "orphans":
            jobs = [pool.submit(python, 0) for _ in range(2)]
            print("running", flush=True)
            await asyncio.wait(jobs)
        else:
            limit = None if scene == "python" else 1
            limited = pool.options(run_timeout=limit)
            jobs = [limited.submit(WAYS[scene], 0) for _ in range(2)]
            await asyncio.wait(jobs, timeout=1 if limit is None else None)
            for job in jobs:
                job.cancel()
            print(await asyncio.wait_for(pool.run(work, 1, 0), 5) == 1)
asyncio.run(main(sys.argv[1]))
"""

FUTURES = """
def main(scene):
    pool = make()
    def start(function, *args, **limit):
        if pebble:
            return pool.schedule(function, args=args, **limit)
        return pool.submit(function, *args)
    if scene == "crash":
        jobs = [start(work, n, 7) for n in range(JOBS)]
        concurrent.futures.wait(jobs, timeout=10)
        print(sum(job.done() and job.exception() is None for job in jobs), flush=True)
        print(start(work, 1, 0).result(5) == 1, flush=True)
    elif scene == "orphans":
        jobs = [start(python, 0) for _ in range(2)]
        time.sleep(0.5)
        print("running", flush=True)
        concurrent.futures.wait(jobs)
    else:
        limit = {} if scene == "python" else {"timeout": 1}
        jobs = [start(WAYS[scene], 0, **limit) for _ in range(2)]
        concurrent.futures.wait(jobs, timeout=3 if pebble and limit else 1)
        for job in jobs:
            job.cancel()
        print(start(work, 1, 0).result(5) == 1, flush=True)
if __name__ == "__main__":
    try:
        main(sys.argv[1])
    finally:
        os._exit(0)  # some would wait for their processes for ever
"""

PEERS = {
    "offloop": ("offloop", "", OFFLOOP),
    "ProcessPoolExecutor": (
        "concurrent.futures",
        "pebble = False\nmake = lambda: concurrent.futures.ProcessPoolExecutor(2)",
        FUTURES,
    ),
    "loky": (
        "loky",
        "pebble = False\nimport loky\nmake = lambda: loky.ProcessPoolExecutor(2)",
        FUTURES,
    ),
    "pebble": (
        "pebble",
        "import pebble as p\npebble = True\nmake = lambda: p.ProcessPool(2)",
        FUTURES,
    ),
}


def program(setup, body, scene, folder, stdout):
    """Start a program of one peer; its processes are found below it."""
    path = f"{folder}/peer.py"
    with open(path, "w") as file:
        file.write(PRELUDE + textwrap.dedent(setup) + body)
    return subprocess.Popen(
        [sys.executable, path, scene],
        stdout=stdout,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def lines(setup, body, scene, folder):
    """Return what a program prints, and end whatever it leaves."""
    with open(f"{folder}/output", "w+") as output:
        with program(setup, body, scene, folder, output) as running:
            family = []
            try:
                running.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                family = psutil.Process(running.pid).children(recursive=True)
                running.kill()
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
        end(family)
        output.seek(0)
        return output.read().split()


def orphans(setup, body, folder):
    """Return how many processes live a second after the program was killed."""
    running = program(setup, body, "orphans", folder, subprocess.PIPE)
    running.stdout.readline()
    family = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    _, there = psutil.wait_procs(family, timeout=1)
    alive = [process for process in there if lives(process)]
    end(alive)
    running.communicate()
    return len(alive)


def lives(process):
    """Tell whether a process does anything still: a zombie only waits to be reaped."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(processes):
    for process in processes:
        if process.is_running():
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def main():
    import importlib.util
    import tempfile

    columns = ["others return", "works on", *IN_THE_WAY.values(), "orphans"]
    print(f"{'':22}" + "".join(f"{column:>15}" for column in columns))
    failed = False
    for name, (module, setup, body) in PEERS.items():
        if importlib.util.find_spec(module) is None:
            print(f"{name:22} is not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            crash = lines(setup, body, "crash", folder) or ["0"]
            said = (lines(setup, body, scene, folder) for scene in IN_THE_WAY)
            good = [crash[1:] == ["True"], *(one == ["True"] for one in said)]
            left = orphans(setup, body, folder)
        cells = [f"{crash[0]} of {JOBS - 1}", *("yes" if g else "no" for g in good)]
        print(f"{name:22}" + "".join(f"{cell:>15}" for cell in [*cells, left]))
        if name == "offloop":
            failed = not (int(crash[0]) == JOBS - 1 and all(good) and not left)
    return failed


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"({time.monotonic() - began:.0f} s)")
    sys.exit(code)
