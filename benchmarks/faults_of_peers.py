"""The same faults for offloop and for other pools of processes.

    python benchmarks/faults_of_peers.py

One of forty jobs kills its process; how many of the others return, and does the pool
work afterwards? A job loops for ever and is cancelled after a second: is its process
free again? And when the program is killed: how many processes outlive it? Pools that
are not installed (loky, pebble) are left out. Exits with 1 if offloop loses anything.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import psutil

JOBS = 40
PATIENCE = 20.0

PRELUDE = f"""
import asyncio, concurrent.futures, itertools, os, signal, sys, time
JOBS = {JOBS}
def work(number, fatal):
    if number == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.005)
    return number
def loop(_):
    while True:
        pass
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
        elif scene == "endless":
            jobs = [pool.submit(loop, 0) for _ in range(2)]
            await asyncio.wait(jobs, timeout=1)
            for job in jobs:
                job.cancel()
            print(await asyncio.wait_for(pool.run(work, 1, 0), 5) == 1)
        else:
            jobs = [pool.submit(loop, 0) for _ in range(2)]
            print("running", flush=True)
            await asyncio.wait(jobs)
asyncio.run(main(sys.argv[1]))
"""

FUTURES = """
def main(scene):
    pool = make()
    def start(function, *args):
        if pebble:
            return pool.schedule(function, args=args)
        return pool.submit(function, *args)
    if scene == "crash":
        jobs = [start(work, n, 7) for n in range(JOBS)]
        concurrent.futures.wait(jobs, timeout=10)
        print(sum(job.done() and job.exception() is None for job in jobs), flush=True)
        print(start(work, 1, 0).result(5) == 1, flush=True)
    elif scene == "endless":
        jobs = [start(loop, 0) for _ in range(2)]
        concurrent.futures.wait(jobs, timeout=1)
        for job in jobs:
            job.cancel()
        print(start(work, 1, 0).result(5) == 1, flush=True)
    else:
        jobs = [start(loop, 0) for _ in range(2)]
        time.sleep(0.5)
        print("running", flush=True)
        concurrent.futures.wait(jobs)
    os._exit(0)
if __name__ == "__main__":
    main(sys.argv[1])
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


def program(setup, body, scene, folder):
    """Start a program of one peer; its processes are found below it."""
    path = f"{folder}/peer.py"
    with open(path, "w") as file:
        file.write(PRELUDE + textwrap.dedent(setup) + body)
    return subprocess.Popen(
        [sys.executable, path, scene],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def lines(setup, body, scene, folder):
    """Return what a program prints, and end whatever it leaves."""
    running = program(setup, body, scene, folder)
    try:
        output, _ = running.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        family = psutil.Process(running.pid).children(recursive=True)
        running.kill()
        end(family)  # they hold the pipe open
        output, _ = running.communicate()
    return output.split()


def orphans(setup, body, folder):
    """Return how many processes live two seconds after the program was killed."""
    running = program(setup, body, "orphans", folder)
    running.stdout.readline()
    family = psutil.Process(running.pid).children(recursive=True)
    running.kill()
    _, alive = psutil.wait_procs(family, timeout=2)
    end(alive)
    running.communicate()
    return len(alive)


def end(processes):
    for process in processes:
        if process.is_running():
            process.kill()
    psutil.wait_procs(processes, timeout=5)


def main():
    import importlib.util
    import tempfile

    print(f"{'':22}{'others return':>15}{'works on':>10}{'stopped':>9}{'orphans':>9}")
    failed = False
    for name, (module, setup, body) in PEERS.items():
        if importlib.util.find_spec(module) is None:
            print(f"{name:22} is not installed")
            continue
        with tempfile.TemporaryDirectory() as folder:
            crash = lines(setup, body, "crash", folder)
            endless = lines(setup, body, "endless", folder)
            left = orphans(setup, body, folder)
        returned = crash[0] if crash else "0"
        usable = crash[1:] == ["True"]
        stopped = endless == ["True"]
        print(
            f"{name:22}{returned + ' of ' + str(JOBS - 1):>15}"
            f"{'yes' if usable else 'no':>10}{'yes' if stopped else 'no':>9}{left:>9}"
        )
        if name == "offloop":
            failed = not (int(returned) == JOBS - 1 and usable and stopped and not left)
    return failed


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"({time.monotonic() - began:.0f} s)")
    sys.exit(code)
