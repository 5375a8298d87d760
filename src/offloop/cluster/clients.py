"""A client as its coordinator sees it: its line, its functions, what it has pending.

A client is a process of this user that opened `Pool(engine="shared")`. Its line
carries jobs and results, which stay as they were encoded, and its end tells of the
client's. Nothing here decides which job is next.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from offloop import messages
from offloop.cluster.transit import Loan, Passing
from offloop.engines.memory import Large
from offloop.wire.functions import Function
from offloop.wire.puts import Stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from offloop.cluster.transit import Transit
    from offloop.engines.call import CallTerms
    from offloop.wire.lifeline import Lifeline


class Ticket(NamedTuple):
    """Whose job a call is, in the place of a future."""

    client: Client
    job: int


class Client:
    """One connected client.

    Args:
        number: unique in its coordinator.
        pid: its process id, 0 if that is not known here.
        name: of its pool, for people.
        line: to it; belongs to this object from now on, as does the next one.
        memory: descriptor of the file that it writes large arguments to.
        wake: called when there is something to tell it at the end of this turn.
    """

    def __init__(
        self,
        number: int,
        pid: int,
        name: str,
        line: Lifeline,
        memory: int,
        wake: Callable[[Client], object],
    ) -> None:
        self.number = number
        self.pid = pid
        self.name = name
        self.line = line
        self._loop = asyncio.get_running_loop()
        self._memory = memory
        self._wake = wake
        #: whose memory, how workers find it, and how they know that it is still it
        path = f"/proc/{os.getpid()}/fd/{memory}"
        self._source = (number, path, os.fstat(memory).st_ino)
        #: its functions, by the client's numbers
        self.functions: dict[int, Function] = {}
        #: what its short calls of each have in common, as the scheduler wants it
        self.terms: dict[int, CallTerms] = {}
        #: what it has put, by number
        self.puts: dict[int, Stored] = {}
        #: jobs that have not ended: this pool's number, by the client's
        self.pending: dict[int, int] = {}
        #: results that it looks at, by worker and token
        self._looks: dict[tuple[int, int], Passing] = {}
        #: workers whose memory it knows
        self.workers: set[int] = set()
        #: tokens of its memory that nobody uses any more
        self._freed: list[int] = []
        self.gone = False

    # Its memory

    def large(self, place: Sequence[int]) -> Large:
        """Return what stands for a buffer in the client's memory."""
        token, offset, size, mode = place
        loan: Any = Loan(self._source, token, self._free)
        return Large(loan, offset, size, mode)

    def _free(self, token: int) -> None:
        if not self.gone:
            if not self._freed:
                self._wake(self)
            self._freed.append(token)

    def tell_freed(self) -> None:
        """Tell the client what of its memory it may use again."""
        if self._freed:
            freed, self._freed = self._freed, []
            self.send((messages.FREED, freed))

    def learn_puts(self, news: Iterable[tuple[int, list[Any]]]) -> None:
        """Note objects that jobs of this client will name."""
        for number, places in news:
            stored = Stored(self, number, "", lambda number: None)
            stored.blocks = [self.large(place) for place in places]
            self.puts[number] = stored

    # Its results

    def look(self, passing: Passing, transit: Transit) -> tuple[int, int, int, int]:
        """Let the client look at a result; returns where it is."""
        worker = passing.worker
        if worker not in self.workers:
            self.workers.add(worker)
            self.send((messages.MEMORY, worker, transit.size), transit.results)
        self._looks[worker, passing.place[0]] = passing
        return passing.place

    def used(self, worker: int, tokens: Iterable[int]) -> None:
        """Note that the client looks at some results no more."""
        for token in tokens:
            self._looks.pop((worker, token), None)

    # Its line

    def send(self, message: tuple[Any, ...], *descriptors: int) -> None:
        """Send a message, unless the client has gone."""
        if not self.gone:
            self.line.send(message, *descriptors)
            if not self.line.flush():
                self._loop.add_writer(self.line.fileno(), self._write)

    def _write(self) -> None:
        if self.line.flush():
            self._loop.remove_writer(self.line.fileno())

    def close(self) -> None:
        """Let go of everything that was the client's."""
        self.gone = True
        self._looks.clear()
        self.puts.clear()
        self._loop.remove_reader(self.line.fileno())
        self._loop.remove_writer(self.line.fileno())
        self.line.close()
        os.close(self._memory)

    def __repr__(self) -> str:
        return f"<client {self.number} {self.name!r} (pid {self.pid})>"


class Registry:
    """Functions of all clients, known to workers by numbers of this pool.

    The same definition is the same function, whoever sent it: what is known of its run
    time holds for all. One that goes by value is forgotten with the last client that
    knows it.
    """

    def __init__(self) -> None:
        self._last_id = 0
        self._functions: dict[bytes | tuple[str, str], Function] = {}
        #: how many clients know a function, by its number here
        self._known_by: dict[int, int] = {}
        self._forgotten: list[int] = []

    def learn(self, client: Client, news: Iterable[tuple[Any, ...]]) -> None:
        """Note functions that calls of this client will name."""
        for number, definition, name, kind in news:
            key = definition or (name, kind)
            function = self._functions.get(key)
            if function is None:
                self._last_id += 1
                identity = self._last_id if definition else 0
                function = Function(identity, definition, name, kind, None)
                self._functions[key] = function
            client.functions[number] = function
            self._known_by[function.id] = self._known_by.get(function.id, 0) + 1

    def forget(self, client: Client, numbers: Iterable[int]) -> None:
        """Drop functions that this client will not name again."""
        for number in numbers:
            client.terms.pop(number, None)
            function = client.functions.pop(number, None)
            if function is None or not function.id:
                continue
            self._known_by[function.id] -= 1
            if not self._known_by[function.id]:
                del self._known_by[function.id]
                del self._functions[function.definition]
                self._forgotten.append(function.id)

    def drain_forgotten(self) -> list[int]:
        """Return the numbers that no new job will use; workers may forget them."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten
