"""Large buffers on their way through the coordinator, which never looks into them.

    client's memory ── Loan ────▶ worker        gone: the client may use its block again
    worker's memory ── Passing ─▶ client        gone: the worker may use its block again

A buffer lies where its writer has put it, and is read there. What passes through here
is its place, and the word that somebody looks at it: an object that tells by its end
that nobody does any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from offloop.engines.memory import Exchange

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from offloop.engines.memory import Large
    from offloop.workspace import Place


class Loan:
    """A client's block that a job of its needs, or an object that was put."""

    __slots__ = ("_tell", "_token", "source")

    def __init__(
        self, source: tuple[int, str, int], token: int, tell: Callable[[int], object]
    ) -> None:
        #: whose memory, the path to it, and how to know it again
        self.source = source
        self._token = token
        self._tell = tell

    def __del__(self) -> None:
        self._tell(self._token)


class Passing:
    """A worker's block with a result, until the client looks at it no more."""

    __slots__ = ("_tell", "place", "worker")

    def __init__(
        self,
        worker: int,
        place: tuple[int, int, int, int],
        tell: Callable[[int], object],
    ) -> None:
        self.worker = worker
        #: in the worker's memory
        self.place = place
        self._tell = tell

    def __del__(self) -> None:
        self._tell(self.place[0])


class Transit(Exchange):
    """What one worker sees of the clients' memory, and they of the worker's.

    Args:
        worker: its number.
        results: descriptor of the file that the worker writes to; stays the caller's.
        size: of that file in bytes.
    """

    def __init__(self, worker: int, results: int, size: int) -> None:
        super().__init__(results, size)
        #: of the worker
        self.worker = worker
        self.results = results
        self.size = size
        #: tokens that no client looks at any more
        self._given_back: list[int] = []

    def lend(self, large: Large, retriable: bool) -> Place:
        """Let the worker look at a buffer of a client's; returns where it is."""
        place: Any = super().lend(large, retriable)
        loan: Any = large.block
        return (*place, loan.source)

    def see(self, places: Sequence[Place], frames: Sequence[memoryview]) -> list[Any]:
        """Return what stands for the buffers of an answer, in their order."""
        rest = iter(frames)
        parts: list[Any] = []
        for place in places:
            if place is None:
                parts.append(next(rest))
            else:
                parts.append(Passing(self.worker, place[:4], self._give_back))
                self.seen += 1
        return parts

    def given_back(self) -> list[int]:
        """Return the tokens of what no client looks at any more."""
        tokens, self._given_back = self._given_back, []
        self.seen -= len(tokens)
        return tokens

    def _give_back(self, token: int) -> None:
        self._given_back.append(token)

    def _vacate(self) -> Generator[object, None, None]:
        """Give nothing back by hand: clients may look at any part, and let go soon."""
        yield from ()
