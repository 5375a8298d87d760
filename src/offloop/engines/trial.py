"""A call that shows whether a worker is any good, before it has a place in the pool.

The scheduler does not know such a worker, so its one call is sent past it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from offloop import messages
from offloop.errors import NotOffloadable, StartError
from offloop.wire import codec, failures

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from offloop.handles import WorkerExit
    from offloop.wire.functions import FunctionTable


class Trial:
    """Calls a probe in a worker and judges the answer.

    Args:
        probe: raises, or returns False, if the worker is no good.
        functions: of the pool.

    Raises:
        NotOffloadable: the probe cannot be sent.
    """

    def __init__(self, probe: Callable[[], object], functions: FunctionTable) -> None:
        self._function, args = functions.prepare(probe, ())
        name = self._function.name
        applied = not self._function.id
        self._arguments, views = codec.encode_call(args, {}, name, applied=applied)
        if views:
            raise NotOffloadable(
                f"the probe {name} carries large data; let it make or load that itself"
            )
        self._answer: asyncio.Future[tuple[Any, ...]] | None = None

    def begin(self, job: int, answer: asyncio.Future[Any]) -> tuple[Any, ...]:
        """Return the message that makes a worker call the probe.

        Args:
            job: number for it.
            answer: gets what the worker says.
        """
        self._answer = answer
        function = self._function
        definitions = [(function.id, function.definition)] if function.id else []
        rows = [(job, function.id, self._arguments)]
        return messages.JOBS, rows, definitions, [], [], [], []

    def answered(self, answers: list[tuple[Any, ...]]) -> None:
        """Note what the worker said of its only job, if anything."""
        if answers and self._answer is not None and not self._answer.done():
            self._answer.set_result(answers[0])

    def ended(self, exit: WorkerExit) -> None:
        """Note that the worker has ended."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(StartError(f"its worker {exit}"))

    async def result(self) -> None:
        """Wait for the answer.

        Raises:
            Exception: what the probe raised, or why there is no good answer.
        """
        assert self._answer is not None  # `begin` was called
        _, (payload, _), _, *more = await self._answer
        status, places = more or (messages.OK, ())
        if status != messages.OK:
            raise failures.decode_error(payload)
        if not places and codec.decode(payload, ()) is False:
            raise ValueError("it returned False")
