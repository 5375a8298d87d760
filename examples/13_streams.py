"""Results that come one by one: a generator in a worker, read while it runs.

Prints:

    primes: 2 3 5 7 11 13
    closed: the generator has cleaned up
    returned: 3 lines
    failed after ['a', 'b']: the file ends here
"""

import asyncio
import itertools
import tempfile
from collections.abc import Generator, Iterator
from contextlib import aclosing
from pathlib import Path

from offloop import Pool, offload


@offload
def primes() -> Iterator[int]:
    for n in itertools.count(2):
        if all(n % d for d in range(2, int(n**0.5) + 1)):
            yield n


def tail(note: str) -> Iterator[str]:
    try:
        while True:
            yield "line"
    finally:
        Path(note).write_text("the generator has cleaned up")


def lines(text: str) -> Generator[str, None, str]:
    found = text.split()
    yield from found
    return f"{len(found)} lines"


def broken() -> Iterator[str]:
    yield "a"
    yield "b"
    raise EOFError("the file ends here")


async def main() -> None:
    # It has no end: the worker runs a little ahead, and is stopped by the break.
    found = []
    async for prime in primes():
        if prime > 13:
            break
        found.append(prime)
    print("primes:", *found)

    async with Pool(max_workers=1) as pool:
        with tempfile.TemporaryDirectory() as folder:
            note = Path(folder, "note")
            async with aclosing(pool.stream(tail, str(note))) as stream:
                await anext(stream)
            # The pool has one worker: the next job comes after the end of that one.
            print("closed:", await pool.run(note.read_text))

        stream = pool.stream(lines, "a b c")
        async for _ in stream:
            pass
        print("returned:", await stream.job)

        parts: list[str] = []
        try:
            async for part in pool.stream(broken):
                parts += [part]
        except EOFError as error:
            print(f"failed after {parts}: {error}")


asyncio.run(main())
