"""What can go wrong, and how it looks from the caller's side.

Prints:

    ValueError: bad pixel
      raised in: brighten
    WorkerLost: SIGKILL while it ran die (07_errors.py:25)
    NotOffloadable: nothing was sent
    the pool goes on: b'ok'
"""

import asyncio
import os
import signal
import threading

from offloop import Pool
from offloop.errors import NotOffloadable, WorkerLost


def brighten(data: bytes) -> bytes:
    raise ValueError("bad pixel")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main() -> None:
    async with Pool(max_workers=1) as pool:
        # An exception arrives as itself; its cause is the traceback in the worker.
        try:
            await pool.run(brighten, b"...")
        except ValueError as error:
            print("ValueError:", error)
            if "in brighten" in str(error.__cause__):
                print("  raised in: brighten")

        # Only the job that ran is hit when a process dies; it is replaced at once.
        try:
            await pool.run(die)
        except WorkerLost as lost:
            print(f"WorkerLost: {lost.signal} while it ran {lost.function}")

        # What cannot travel is an error at the call, before anything is queued.
        try:
            await pool.run(print, threading.Lock())
        except NotOffloadable:
            print("NotOffloadable: nothing was sent")

        print("the pool goes on:", await pool.run(bytes, b"ok"))


asyncio.run(main())
