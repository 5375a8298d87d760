"""What engines send: a call with the scheduler's record of it, and the set-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from offloop import authkey, sandbox
from offloop.core.job import JobRecord, Terms
from offloop.errors import UsageError
from offloop.wire import codec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from offloop.options import JobOptions, PoolOptions
    from offloop.telemetry.tallies import Tally
    from offloop.wire.carried import Carried
    from offloop.wire.codec import Payload
    from offloop.wire.functions import Function
    from offloop.wire.puts import Stored


class CallTerms(Terms):
    """What calls of one function with the same options have in common."""

    __slots__ = ("function", "many", "options", "tally", "timeout")

    #: what is called
    function: Function
    #: what its jobs are counted in
    tally: Tally
    #: True: `arguments` of calls hold a list of items; a number: they are streams,
    #: whose generator may be so many parts ahead of its consumer
    many: bool | int
    options: JobOptions
    #: seconds from submission to result; inf: any
    timeout: float


class Call(JobRecord):
    """A job's record with what its engine needs: one object for both."""

    __slots__ = (
        "arguments",
        "buffers",
        "carried",
        "plain",
        "started_at",
        "stored",
    )

    terms: CallTerms
    #: it has nothing but its function and plain arguments: no word of what follows,
    #: no deadline
    plain: bool
    #: its encoded arguments, and the large ones beside them; None: the last of those
    arguments: Payload | None
    buffers: Sequence[Any]
    #: what travels of its caller's context
    carried: Carried | None
    #: what `pool.put` has that the arguments name
    stored: Sequence[Stored]
    #: when the function was called last, in monotonic seconds; 0.0: not yet
    started_at: float

    @property
    def function(self) -> Function:
        """What is called."""
        return self.terms.function

    @property
    def many(self) -> bool | int:
        """See `CallTerms.many`."""
        return self.terms.many

    @property
    def options(self) -> JobOptions:
        """Options of the job."""
        return self.terms.options

    @property
    def closes(self) -> bool:
        """True for a stream, which rests in each `yield` of its generator."""
        return type(self.many) is int


class _Ended:
    """Stands for a job's future that has ended."""

    __slots__ = ()

    def done(self) -> bool:
        return True


#: takes the place of `Call.handle`: a `Job` knows its call, and together they would
#: keep a large result, or an error with all its frames, until a garbage collection
ENDED = _Ended()


def check_sandbox(options: PoolOptions) -> None:
    """Refuse a sandbox where there can be none, rather than run jobs without it.

    Raises:
        UsageError: this system does not have what it needs.
    """
    if options.sandbox and not sandbox.is_possible():
        raise UsageError(
            "sandbox=True needs Linux on x86-64 or ARM64; leave it out, or run the "
            "pool in a container without a network"
        )


def encode_setup(options: PoolOptions) -> bytes | None:
    """Encode the initializer, which must be an error here and not in each worker."""
    what: tuple[Any, ...] = (options.initializer, options.initargs)
    key = authkey.current()
    if key is not None:
        what = authkey.begin, (key, *what)
    elif options.initializer is None:
        return None
    payload, _ = codec.encode(what, describe="initializer and initargs", in_band=True)
    return bytes(payload)
