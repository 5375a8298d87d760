"""What `watch_loop` takes from a program, with its loop idle and with it busy.

    python benchmarks/loop_watch_cost.py

    idle    processor time of a process whose loop has nothing to do
    busy    turns of a loop that is never idle, with the watch and without, in turns

Its limit is half a percent, of a core and of the turns. In both cases the process has a
second thread and the loop a timer, as every program with a pool and a time limit: the
first of each makes an empty turn of asyncio dearer by some percent, whoever brings it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import threading
import time

from offloop import watch_loop


async def idle(seconds, watched):
    """Return the share of a core that an idle loop takes."""
    with watch_loop() if watched else contextlib.nullcontext():
        await asyncio.sleep(0.1)
        before = time.process_time()
        await asyncio.sleep(seconds)
        return (time.process_time() - before) / seconds


async def busy(seconds, watched):
    """Return the turns a second of a loop that always has something to do."""
    asyncio.get_running_loop().call_later(3600, id)
    with watch_loop() if watched else contextlib.nullcontext():
        turns = 0
        before = time.process_time()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for _ in range(100):
                await asyncio.sleep(0)
            turns += 100
        return turns / (time.process_time() - before)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    plain = asyncio.run(idle(3 * options.seconds, False))
    watched = asyncio.run(idle(3 * options.seconds, True))
    print(f"idle: {watched - plain:.3%} of a core")
    ratios = []
    for number in range(options.rounds):
        order = (False, True) if number % 2 else (True, False)
        turns = {one: asyncio.run(busy(options.seconds, one)) for one in order}
        ratios.append(1 - turns[True] / turns[False])
    spread = statistics.quantiles(ratios, n=4)
    print(
        f"busy: {statistics.median(ratios):.3%} of the turns a second of processor time"
        f" (quartiles {spread[0]:.3%} to {spread[2]:.3%}, {options.rounds} rounds)"
    )


if __name__ == "__main__":
    main()
