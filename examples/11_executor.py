"""Without asyncio: the standard library's executor, whose calls can be stopped.

Prints:

    as completed: [0, 1, 4, 9]
    map: [0, 1, 4, 9]
    stopped: True
    one job lost: SIGKILL
    still there: 16
"""

import os
import signal
from concurrent.futures import BrokenExecutor, as_completed

from offloop import Executor


def square(n: int) -> int:
    return n * n


def endless() -> None:
    while True:
        pass


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


with Executor(max_workers=2) as executor:
    futures = [executor.submit(square, n) for n in range(4)]
    print("as completed:", sorted(future.result() for future in as_completed(futures)))
    print("map:", list(executor.map(square, range(4))))

    # A future that is cancelled stops its call, even in an endless loop.
    stuck = executor.submit(endless)
    print("stopped:", stuck.cancel())

    # A worker that dies costs the call that it ran; the executor is not broken.
    try:
        executor.submit(die).result()
    except BrokenExecutor as error:
        print("one job lost:", error.signal)
    print("still there:", executor.submit(square, 4).result())
