"""One job as an engine carries it: the scheduler's record and the encoded call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from offloop.core.job import JobRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from offloop.options import JobOptions
    from offloop.wire.codec import Payload
    from offloop.wire.functions import Function
    from offloop.wire.puts import Stored


class Call(JobRecord):
    """A job's record with what its engine needs: one object for both."""

    __slots__ = (
        "arguments",
        "buffers",
        "function",
        "last_worker",
        "many",
        "options",
        "started_at",
        "stored",
    )

    #: what is called
    function: Function
    #: its encoded arguments, and the large ones beside them; None: the last of those
    arguments: Payload | None
    buffers: Sequence[Any]
    #: what `pool.put` has that the arguments name
    stored: Sequence[Stored]
    #: `arguments` holds a list of argument tuples
    many: bool
    options: JobOptions
    #: when the function was called last, in monotonic seconds; 0.0: not yet
    started_at: float
    #: number of the worker that has the job, or had it last
    last_worker: int | None
