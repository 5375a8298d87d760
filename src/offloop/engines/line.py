"""What the conductor keeps for one worker, and says to it.

    calls ─▶ rows, and what is new to this worker ═▶ channel ═▶ worker
             (definitions, objects, what it may forget)

A line knows what its worker has been told already, so nothing travels twice. It
decides nothing, and hears nothing: what comes back is for the conductor.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from offloop import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from offloop.engines.call import Call
    from offloop.engines.memory import Exchange
    from offloop.engines.trial import Trial
    from offloop.handles import WorkerHandle


class Line:
    """One worker as the conductor speaks to it.

    Args:
        worker: its handle.
        exchange: what the two see of each other's memory.
        look_again: called when there may be something to read that no edge tells of.
    """

    __slots__ = (
        "_look_again",
        "exchange",
        "forgotten",
        "gone",
        "known",
        "looks",
        "recalled",
        "recalls",
        "trial",
        "unanswered",
        "worker",
    )

    def __init__(
        self,
        worker: WorkerHandle,
        exchange: Exchange,
        look_again: Callable[[Line], object],
    ) -> None:
        self.worker = worker
        #: what the two see of each other's memory
        self.exchange = exchange
        self._look_again = look_again
        #: jobs that have left and were neither answered for nor given back
        self.unanswered = 0
        #: somebody looks, now or in the next turn, at what there is to read
        self.looks = False
        #: the process has ended: nothing is sent any more
        self.gone = False
        #: jobs to be asked back with the next flush
        self.recalled: list[int] = []
        #: RECALL messages that the worker has not answered; never below 0
        self.recalls = 0
        #: functions whose definition the worker has
        self.known: set[int] = set()
        #: waits for the answer of a worker that is tried; None for one of the pool
        self.trial: Trial | None = None
        #: functions that it may forget, to be told with the next jobs
        self.forgotten: list[int] = []

    def send_jobs(self, calls: list[Call]) -> None:
        """Send jobs, with what they need that the worker does not have."""
        rows: list[tuple[Any, ...]] = []
        puts: list[Any] = []
        definitions: list[tuple[int, bytes]] = []
        known = self.known
        terms = None
        identity = 0
        for call in calls:
            if call.terms is not terms:
                terms = call.terms
                identity = terms.function.id
                if identity not in known and identity:
                    known.add(identity)
                    definitions.append((identity, terms.function.definition))
            if call.plain and not call.attempts:
                rows.append((call.id, identity, call.arguments))
                continue
            if call.stored:
                puts += self.exchange.introduce(call.stored)
            rows.append(_full_row(call, self.exchange))
        self.unanswered += len(rows)
        self._send_rows(rows, definitions, puts)

    def send_news(self) -> None:
        """Tell what there is to tell beside jobs; nothing if there is nothing."""
        self._send_rows([], [], [])

    def _send_rows(
        self,
        rows: list[tuple[Any, ...]],
        definitions: list[tuple[int, bytes]],
        puts: list[Any],
    ) -> None:
        exchange = self.exchange
        freed = exchange.given_back()
        known = exchange.forgotten or exchange.clients_gone
        if definitions or self.forgotten or puts or freed or known:
            news = (definitions, self.forgotten, puts, exchange.forgotten, freed)
            gone = exchange.clients_gone
            self.send((messages.JOBS, rows, *news, gone))
            self.forgotten, exchange.forgotten, exchange.clients_gone = [], [], []
        elif rows:
            self.send((messages.JOBS, rows))

    def forget(self, functions: Iterable[int]) -> None:
        """Let the worker drop the definitions of these that it has."""
        gone = self.known.intersection(functions)
        self.known -= gone
        self.forgotten.extend(gone)

    def send_recall(self) -> None:
        """Ask back the jobs in `recalled`, with one message for all of them."""
        worker = self.worker
        self.recalls += 1
        worker.page.ask_attention(True)
        self.send((messages.RECALL, self.recalled))
        worker.send_signal(messages.WAKE_SIGNAL)
        self.recalled = []

    def send(self, message: tuple[Any, ...]) -> None:
        """Send a message, unless the process has ended."""
        if self.gone:  # its jobs go back to the queue in a moment
            return
        channel = self.worker.channel
        channel.send(message)
        # Sending may swallow the edge that tells of something to read.
        if not self.looks and channel.wants_reading():
            self.look_soon()

    def ask_for_report(self) -> None:
        """Have it told what the worker holds back of a job's progress, if it does.

        It tells again by itself when the job reports again; this is for one that goes
        on for long without a word.
        """
        if not self.gone and self.worker.page.holds_report():
            self.worker.send_signal(messages.WAKE_SIGNAL)

    def look_soon(self) -> None:
        """Have it looked at in the next turn: once, however often this is called.

        Each look may lead to sending, and each sending to a look.
        """
        if not self.looks:
            self.looks = True
            self._look_again(self)


def _full_row(call: Call, exchange: Exchange) -> tuple[Any, ...]:
    retriable = call.retries > 0
    places = [exchange.lend(large, retriable) for large in call.buffers]
    deadline = None if call.deadline == inf else call.deadline
    more = (places, call.attempts + 1, deadline, call.many, call.carried)
    return (call.id, call.function.id, call.arguments, *more)
