"""What an engine has other terms for than a pool of processes of one's own: refusals.

The workers of a shared pool serve other programs too, so nobody has them to himself,
and what programs number by themselves must not clash. Threads are no processes.
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

# What only a process can have.
_OF_PROCESSES = ("env", "isolation", "sandbox", "recycle", "memory_limit")

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
    for word in _given(options, _PRIVATE):
        if _was_sent() and word in _LIMITS:
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


def refuse_processes(options: PoolOptions) -> None:
    """Refuse what threads cannot have.

    A program that was written for processes, and was sent here by its environment, is
    told that it goes without limits.

    Raises:
        UsageError: names it.
    """
    for word in _given(options, without_processes()):
        if _was_sent() and word in _LIMITS:
            _log.info("%s of pool %r does not hold in threads", word, options.name)
        else:
            raise UsageError(
                f'{word} needs processes, and engine="thread" has none: leave it out, '
                'or use engine="local"'
            )


def without_processes() -> tuple[str, ...]:
    """Return the pool options that mean nothing without processes."""
    return _OF_PROCESSES


def _given(options: PoolOptions, words: tuple[str, ...]) -> list[str]:
    """Return those of these options that were given."""
    defaults: dict[str, object] = {"env": {}, "sandbox": False}
    return [word for word in words if getattr(options, word) != defaults.get(word)]


def _was_sent() -> bool:
    """Tell whether the environment has chosen the engine, and not the program."""
    return bool(os.environ.get("OFFLOOP_ENGINE"))
