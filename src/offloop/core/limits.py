"""How many jobs of one function may be with workers at once.

    queue ──▶ its turn ──▶ room below the limit ──▶ sent ──▶ answered
      ▲          │ none                                         │
      │          ▼                                              │
      └─────── held  ◀──────────── one comes out ───────────────┘

A job over the limit steps aside when its turn comes, so that jobs of other functions
pass it; when one of its kind is answered for, the first of those that stepped aside
goes back before the others in the queue. It decides nothing else: the ledger moves the
jobs.
"""

from __future__ import annotations

from offloop.core.job_queue import JobQueue


class ConcurrencyLimit:
    """The limit that jobs of one function share.

    Args:
        most: jobs that may be with workers at once.
    """

    __slots__ = ("__weakref__", "held", "most", "parked", "sent")

    def __init__(self, most: int) -> None:
        self.most = most
        #: jobs that are in a worker's inbox, wanted or not; never above `most`
        self.sent = 0
        #: jobs whose turn came while it was full; while there are any, as many others
        #: are sent or in the queue as may be sent
        self.held = JobQueue()
        #: numbers of those jobs
        self.parked: set[int] = set()

    @property
    def full(self) -> bool:
        """True while no further job may be sent."""
        return self.sent >= self.most
