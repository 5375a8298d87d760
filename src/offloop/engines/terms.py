"""What differs for a program whose pool belongs to somebody else: refusals and numbers.

The workers serve other programs too, so nobody has them to himself; and what programs
number by themselves must not clash.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Any

from offloop.errors import PoolFull, UsageError

if TYPE_CHECKING:
    from offloop.options import PoolOptions

_log = logging.getLogger("offloop")

# What belongs to the workers, and so to whoever started them.
_PRIVATE = ("initializer", "env", "isolation", "recycle", "memory_limit")

# What changes no result, so that a program that did not choose this engine can do with
# what the workers have got.
_LIMITS = ("recycle", "memory_limit")


def plain_key(key: Any) -> Any:
    """Return what stands for a key: the same one in all clients, if it is plain."""
    return key if key is None or type(key) in (str, int, bytes) else hash(key)


def full_there() -> PoolFull:
    return PoolFull(
        "the shared pool is full: its coordinator takes no more jobs for now, and the "
        "job was not queued. Use run or map, which wait, or raise --max-pending of "
        "`offloop serve`."
    )


def first_put() -> int:
    """Return a number for the first object that is put, unlike those of all clients."""
    return int.from_bytes(os.urandom(5), "little") << 22


def refuse_private(options: PoolOptions) -> None:
    """Refuse what only a pool of one's own can have.

    A program that was written for a pool of its own, and was sent here by its
    environment, is told that the coordinator's limits hold.

    Raises:
        UsageError: names it.
    """
    if sys.platform != "linux":
        raise UsageError('engine="shared" needs Linux; use engine="local"')
    defaults: dict[str, object] = {"env": {}}
    sent_here = bool(os.environ.get("OFFLOOP_ENGINE"))
    for word in _PRIVATE:
        if getattr(options, word) == defaults.get(word):
            continue
        if sent_here and word in _LIMITS:
            _log.info(
                "%s of pool %r is not its own here: the shared pool has what "
                "`offloop serve` was given",
                word,
                options.name,
            )
        else:
            raise UsageError(
                f"{word} cannot be given to a shared pool, whose workers serve other "
                "programs too: leave it out, or have a pool of your own, with "
                'engine="local" and no OFFLOOP_ENGINE in the environment'
            )
