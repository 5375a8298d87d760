"""Arrays travel beside the message, not inside it: nothing is pickled byte by byte.

Prints:

    shape (500, 500), mean 1.0
    writable here: True
"""

import asyncio

import numpy as np

from offloop import offload


@offload
def normalise(image: np.ndarray) -> np.ndarray:
    return image / image.mean()


async def main() -> None:
    image = np.random.default_rng(seed=1).random((500, 500))
    result = await normalise(image)
    print(f"shape {result.shape}, mean {result.mean():.1f}")
    print("writable here:", result.flags.writeable)


asyncio.run(main())
