"""A pool for one test, in whatever event loop the test will run.

Fixtures are set up before there is a loop, and torn down when it stands still or is
closed already. So the pool begins with the first call, in the loop of that call, and is
ended from outside. The pytest plugin gives it to tests; other runners may use it too.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from offloop import default_pools
from offloop.pool import Pool
from offloop.remains import end

if TYPE_CHECKING:
    from collections.abc import Generator

    from offloop.engines.base import Engine

__all__ = ["LazyPool", "pool_for_test"]


class LazyPool(Pool):
    """A pool that begins with its first call, and ends with the loop of that.

    There it is what functions of `@offload` use.

    Args:
        **options: as for `Pool`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._ends_with_loop = True

    def _open(self) -> Engine:
        engine = super()._open()
        default_pools.adopt(self)
        return engine

    def _engine_now(self) -> Engine:
        if self.is_new:
            self._begin()
        return super()._engine_now()


@contextlib.contextmanager
def pool_for_test(**options: Any) -> Generator[LazyPool]:
    """Give a pool to use in a test, and to the functions of `@offload` in that test.

    Args:
        **options: as for `Pool`, beside what `configure` has set; two workers, unless
            it says otherwise.

    Raises:
        TypeError, ValueError: for a wrong option.
    """
    words = {"name": "test", "max_workers": 2, **default_pools.options(), **options}
    pool = LazyPool(**words)
    with default_pools.standing_in(pool):
        try:
            yield pool
        finally:
            end(pool)
