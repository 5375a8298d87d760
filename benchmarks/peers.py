"""The contenders: offloop and those it is compared with, each behind the same face.

    async with contender(workers) as peer:
        result = await peer.run(fn, argument)

Each measurement runs in a fresh process (`alone`), so that no contender lives with what
another has left behind: threads, warm memory, patched modules. Peers that are not
installed are named in the tables with the reason; ``pip install --group bench``
installs them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor


class CannotDo(Exception):
    """This contender cannot run this case; the reason is the message."""


class Offloop:
    name = "offloop"

    def __init__(self, workers):
        from offloop import Pool

        self.pool = Pool(workers)

    async def __aenter__(self):
        await self.pool.__aenter__()
        await self.pool.ready()
        return self

    async def __aexit__(self, *error):
        await self.pool.__aexit__(*error)

    async def run(self, fn, argument):
        return await self.pool.run(fn, argument)

    def submit(self, fn, argument):
        """Return a future at once, in the thread of the loop."""
        return self.pool.submit(fn, argument)


class OffloopEmpty(Offloop):
    """offloop, with arrays that were made where the workers can see them."""

    name = "offloop, pool.empty"

    def place(self, array):
        if not hasattr(self.pool, "empty"):
            raise CannotDo("this version has no pool.empty")
        placed = self.pool.empty(array.shape, array.dtype)
        placed[...] = array
        return placed


class Executor:
    name = "ProcessPoolExecutor"

    def __init__(self, workers):
        self.executor = ProcessPoolExecutor(workers)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        self.executor.shutdown()

    async def run(self, fn, argument):
        return await self.submit(fn, argument)

    def submit(self, fn, argument):
        return asyncio.wrap_future(self.executor.submit(fn, argument))


class Loky(Executor):
    name = "loky"

    def __init__(self, workers):
        import loky

        self.executor = loky.ProcessPoolExecutor(workers)


class Pebble(Executor):
    name = "pebble"

    def __init__(self, workers):
        import pebble

        self.executor = pebble.ProcessPool(workers)

    async def __aexit__(self, *error):
        self.executor.stop()
        self.executor.join()

    def submit(self, fn, argument):
        return asyncio.wrap_future(self.executor.schedule(fn, args=(argument,)))


class MultiprocessingPool:
    name = "multiprocessing.Pool"

    def __init__(self, workers):
        self.pool = multiprocessing.Pool(workers)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        self.pool.terminate()
        self.pool.join()

    async def run(self, fn, argument):
        return await self.submit(fn, argument)

    def submit(self, fn, argument):
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def settle(result):
            loop.call_soon_threadsafe(future.set_result, result)

        def fail(error):
            loop.call_soon_threadsafe(future.set_exception, error)

        self.pool.apply_async(fn, (argument,), callback=settle, error_callback=fail)
        return future


class Joblib:
    """Calls from a thread, which is the way it is used in asyncio programs.

    With one worker it would run the job here, so it has two at least.
    """

    name = "joblib"

    def __init__(self, workers):
        import joblib

        self.delayed = joblib.delayed
        self.parallel = joblib.Parallel(n_jobs=max(workers, 2))
        self.turn = asyncio.Lock()

    async def __aenter__(self):
        self.parallel.__enter__()
        return self

    async def __aexit__(self, *error):
        self.parallel.__exit__(*error)

    async def run(self, fn, argument):
        return (await self.run_all(fn, [argument]))[0]

    async def run_all(self, fn, arguments):
        calls = [self.delayed(fn)(argument) for argument in arguments]
        async with self.turn:  # one call at a time may use the workers
            return await asyncio.to_thread(self.parallel, calls)

    def submit(self, fn, argument):
        raise CannotDo("takes jobs in batches only")


class Dask:
    name = "dask"

    def __init__(self, workers):
        from distributed import Client

        logging.getLogger("distributed").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", message="Sending large graph")
        self.client = Client(
            n_workers=workers,
            threads_per_worker=1,
            asynchronous=True,
            dashboard_address=None,
        )

    async def __aenter__(self):
        await self.client
        return self

    async def __aexit__(self, *error):
        await self.client.close()

    async def run(self, fn, argument):
        return await self.client.submit(fn, argument, pure=False)

    def submit(self, fn, argument):
        future = self.client.submit(fn, argument, pure=False)
        return asyncio.ensure_future(future.result())


class Ray:
    name = "ray"

    def __init__(self, workers):
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
        import ray

        self.ray = ray
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=2 * 1024**3,
            configure_logging=False,
        )
        self.functions = {}

    async def __aenter__(self):
        return self

    async def __aexit__(self, *error):
        self.ray.shutdown()

    async def run(self, fn, argument):
        return await self._call(fn, argument)

    def submit(self, fn, argument):
        return asyncio.wrap_future(self._call(fn, argument).future())

    def _call(self, fn, argument):
        if fn not in self.functions:
            self.functions[fn] = self.ray.remote(fn)
        return self.functions[fn].remote(argument)


CONTENDERS = {
    contender.name: contender
    for contender in (
        Offloop,
        OffloopEmpty,
        Executor,
        Loky,
        Joblib,
        MultiprocessingPool,
        Pebble,
        Dask,
        Ray,
    )
}
OURS = [Offloop.name, OffloopEmpty.name]


# ---- a process for each measurement --------------------------------------------------


def alone(script, timeout, *arguments):
    """Run a script's `report` in a fresh process; returns what it reported.

    What a contender cannot do, or did not do in `timeout` seconds, is reported as
    ``{"cannot": reason}``.
    """
    process = subprocess.Popen(
        [sys.executable, script, "--report", json.dumps(arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, errors = process.communicate(timeout=timeout)
        wait_for_group(process.pid, 3.0)
    except subprocess.TimeoutExpired:
        return {"cannot": f"took more than {timeout} s"}
    finally:
        # Some leave processes behind, and all do when they are stopped.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for line in reversed(said.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    last = (errors.strip() or f"exit code {process.returncode}").splitlines()[-1]
    return {"cannot": last[:100]}


def wait_for_group(group, patience):
    """Let the last processes of a contender end: some of them clean up for it."""
    end = time.monotonic() + patience
    with contextlib.suppress(ProcessLookupError):
        while time.monotonic() < end:
            os.killpg(group, 0)
            time.sleep(0.02)


def take_turns(names, repeats, script, timeout, *arguments):
    """Let each contender report `repeats` times, one after the other; see `alone`.

    Returns:
        Contender and its reports; only one, if that says what it cannot do.
    """
    found = {name: [] for name in names}
    for _ in range(repeats):
        for name, reports in found.items():
            if not reports or "cannot" not in reports[-1]:
                reports.append(alone(script, timeout, name, *arguments))
    return found


def report(measure):
    """Print what the coroutine function reports, if the process was started for that.

    Returns:
        False if this is the process that starts the others.
    """
    if "--report" not in sys.argv:
        return False
    name, *arguments = json.loads(sys.argv[sys.argv.index("--report") + 1])

    async def main():
        return await measure(CONTENDERS[name], *arguments)

    try:
        found = asyncio.run(main())
    except (CannotDo, ImportError) as error:
        found = {"cannot": str(error)}
    print(json.dumps(found), flush=True)
    return True


def print_reasons(results):
    """Say why there are gaps in a table."""
    for (name, *case), result in results.items():
        if "cannot" in result:
            print(f"    {name}, {', '.join(map(str, case))}: {result['cannot']}")
