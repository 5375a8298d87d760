"""A function that always runs elsewhere, and the four ways to call it.

There is no pool to open: the first call starts one, and it ends with the program.

Prints:

    awaited: 1229
    as a job: 1229 sent
    here and now: 1229
    with other options: 1229
"""

import asyncio

from offloop import offload


@offload
def primes_below(limit: int) -> int:
    """Count them by the sieve of Eratosthenes."""
    sieve = bytearray([1]) * limit
    sieve[:2] = b"\0\0"
    for n in range(2, int(limit**0.5) + 1):
        if sieve[n]:
            sieve[n * n :: n] = bytes(len(range(n * n, limit, n)))
    return sum(sieve)


async def main() -> None:
    print("awaited:", await primes_below(10_000))

    job = primes_below.submit(10_000)  # starts at once; a Job is an asyncio.Future
    state = job.state
    print("as a job:", await job, state)

    print("here and now:", primes_below.local(10_000))

    urgent = primes_below.options(priority=10, timeout=60)
    print("with other options:", await urgent(10_000))


asyncio.run(main())
