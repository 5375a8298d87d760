"""The key by which `multiprocessing` knows its own: so that proxies work in workers.

The objects of a `multiprocessing.Manager` are proxies, which any process of the program
may use; they show each other a key, which child processes inherit. Workers are no
children of `multiprocessing`, so they are told it with their set-up. It comes over the
line that only the program and its workers have.
"""

from __future__ import annotations

import sys

from offloop.wire import on_import

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_HOME = "multiprocessing.process"


def current() -> bytes | None:
    """Return the key of this process, None where nobody can have used it yet."""
    module = sys.modules.get(_HOME)
    return None if module is None else bytes(module.current_process().authkey)


def begin(
    key: bytes, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> None:
    """Take the key, as soon as there is something that asks for it, and initialize."""

    def take() -> None:
        sys.modules[_HOME].current_process().authkey = key

    if _HOME in sys.modules:
        take()
    else:
        on_import.watch(_HOME, take, always=True)
    if initializer is not None:
        initializer(*initargs)
