"""A page of shared memory that tells what a worker is doing, whatever happens to it.

One anonymous file per worker, made by the parent, written without any lock: each word
has one writer, and a word of eight aligned bytes is written in one store.

    0     running job      worker    0 while idle
    8     since            worker    monotonic nanoseconds
    16    answers kept     worker    grows by one with each
    24    attention        parent    "look at your socket before the next job"
    32    interrupt        parent    number of the job that must stop
    40    heard            parent    last job of the answers that have arrived
    48    jobs             worker    jobs that it has run, if it counts them
    56    memory           worker    bytes that it held when it last looked
    64    max jobs         parent    after so many it stops by itself; 0: never
    72    max memory       parent    above so many bytes likewise
    80    memory limit     parent    bytes that a job may not go beyond; 0: any
    88    sandbox          parent    give up rights before the first job
    96    printed          worker    bytes that it has written to stdout and stderr
    104   parts held       worker    parts of a stream are held back for company
    112   report held      worker    the job says how far it is, and was not told on
    4096  slots            worker    the last SLOTS answers, small ones
    ...   overflow         worker    the same slots, for larger ones (sparse)
    ...   output           worker    the last of those bytes, a ring
    end   last words       worker    written by faulthandler, in a crash or asked

Why the answers: a worker may hold several short jobs, and ZeroMQ sends from a thread of
its own. An answer handed to it is lost if the next job kills the process at once,
although that job has run. So each answer is kept here *before* the next job begins. A
worker never holds more than SLOTS jobs, so an answer that has not arrived is among the
last SLOTS kept: the parent finds it here, and exactly one job, the running one, is hit
by the death.

This module never talks to a socket and never decides what a death means.
"""

from __future__ import annotations

import mmap
import os
import struct

from offloop.wire import sparse_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

#: jobs that a worker may hold at once; the scheduler's max_credit must not be larger
SLOTS = 64

_SMALL = 256
_LARGE = 32 * 1024 + _SMALL  # the payload, and what is said of it
_WORDS = 16
_SLOTS_AT = 4096
# Bytes of last words that are read.
_WORDS_ROOM = 16384
# One more than are read: a death may leave the one in work half written.
_RING = SLOTS + 1
_OVERFLOW_AT = _SLOTS_AT + _RING * _SMALL
_OUTPUT_AT = _OVERFLOW_AT + _RING * _LARGE
_OUTPUT_ROOM = 4096
_SIZE = _OUTPUT_AT + _OUTPUT_ROOM

#: bytes of the answer that follows, here or in the overflow
_HEAD = struct.Struct("@Q")
_SMALL_ROOM = _SMALL - _HEAD.size

_RUNNING, _SINCE, _KEPT, _ATTENTION, _INTERRUPT, _HEARD = range(6)
_JOBS, _MEMORY, _MAX_JOBS, _MAX_MEMORY, _LIMIT, _SANDBOX, _PRINTED = range(6, 13)
_PARTS, _REPORT = 13, 14


def create_file() -> int:
    """Return the descriptor of a new zeroed page file that no path leads to."""
    return sparse_file.create_file(_SIZE, "offloop-status", written=False)


class StatusPage:
    """Both ends of one worker's page: the parent creates it, the worker attaches.

    Args:
        descriptor: of the page file; stays the caller's to close, after this object.
    """

    __slots__ = ("_descriptor", "_map", "_view", "_words")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._map = mmap.mmap(descriptor, _SIZE)
        self._view = memoryview(self._map)
        #: the header as machine words, so that each store is whole
        self._words = self._view[: _WORDS * 8].cast("Q")

    @staticmethod
    def prepare_last_words(descriptor: int) -> None:
        """Let what faulthandler writes to `descriptor` land behind the page."""
        os.lseek(descriptor, _SIZE, os.SEEK_SET)

    @staticmethod
    def forget_words(descriptor: int) -> None:
        """Drop what was written, so that what comes is all there is.

        Parent and worker share the position in the file along with the file.
        """
        os.ftruncate(descriptor, _SIZE)
        os.lseek(descriptor, _SIZE, os.SEEK_SET)

    @staticmethod
    def last_words(descriptor: int) -> str:
        """Return the last that the worker's faulthandler wrote, if anything."""
        at = max(os.fstat(descriptor).st_size - _WORDS_ROOM, _SIZE)
        return os.pread(descriptor, _WORDS_ROOM, at).decode("utf-8", "replace")

    def close(self) -> None:
        """Unmap the page. Nothing of this object works afterwards."""
        self._words.release()
        self._view.release()
        self._map.close()

    # Worker's end

    def say_last(self, text: str) -> None:
        """Leave last words: what the socket has taken may be lost with the process."""
        words = text.encode("utf-8", "backslashreplace")[-_WORDS_ROOM:]
        os.pwrite(self._descriptor, words, _SIZE)

    def begin(self, job: int, now_ns: int) -> None:
        """Note that `job` runs from now on; its predecessor's answer is kept."""
        words = self._words
        words[_SINCE] = now_ns
        words[_RUNNING] = job

    def rest(self) -> None:
        """Note that no job runs."""
        self._words[_RUNNING] = 0

    def keep(self, answer: bytes) -> bool:
        """Keep an answer until SLOTS more have come.

        Returns:
            False when it is too large to be kept.
        """
        size = len(answer)
        words = self._words
        kept = words[_KEPT]
        slot = kept % _RING
        at = _SLOTS_AT + slot * _SMALL
        if size <= _SMALL_ROOM:
            body = at + _HEAD.size
        elif size <= _LARGE:
            body = _OVERFLOW_AT + slot * _LARGE
        else:
            return False
        _HEAD.pack_into(self._map, at, size)
        self._map[body : body + size] = answer
        words[_KEPT] = kept + 1
        return True

    def attention(self) -> bool:
        """Tell whether the parent wants to be heard before the next job begins."""
        return self._words[_ATTENTION] != 0

    def interrupted(self) -> int:
        """Return the number of the job that must stop, 0 for none."""
        return self._words[_INTERRUPT]

    def heard(self) -> int:
        """Return the last job of the answers that have arrived, 0 for none."""
        return self._words[_HEARD]

    def allowance(self) -> tuple[int, int]:
        """Return how many jobs and bytes the worker may use; 0 is no limit."""
        return self._words[_MAX_JOBS], self._words[_MAX_MEMORY]

    def memory_limit(self) -> int:
        """Return the bytes that no job may make the worker go beyond; 0 for any."""
        return self._words[_LIMIT]

    def sandboxed(self) -> bool:
        """Tell whether jobs run without the rights that the sandbox takes away."""
        return self._words[_SANDBOX] != 0

    def note_used(self, jobs: int, memory: int) -> None:
        """Note how many jobs were run, and the bytes held at the last look."""
        self._words[_JOBS] = jobs
        self._words[_MEMORY] = memory

    def note_printed(self, data: memoryview) -> None:
        """Keep the last of what was written to stdout or stderr."""
        total = self._words[_PRINTED] + len(data)
        last = data[-_OUTPUT_ROOM:]
        at = (total - len(last)) % _OUTPUT_ROOM
        first = last[: _OUTPUT_ROOM - at]
        self._map[_OUTPUT_AT + at : _OUTPUT_AT + at + len(first)] = first
        rest = last[len(first) :]
        self._map[_OUTPUT_AT : _OUTPUT_AT + len(rest)] = rest
        self._words[_PRINTED] = total

    def hold_parts(self, held: bool) -> None:
        """Note whether parts of a stream wait for company."""
        self._words[_PARTS] = held

    def hold_report(self, held: bool) -> None:
        """Note whether a report of the job's progress waits until it may be told."""
        self._words[_REPORT] = held

    # Parent's end

    def holds_parts(self) -> bool:
        """Tell whether parts of a stream are there that were not sent."""
        return self._words[_PARTS] != 0

    def holds_report(self) -> bool:
        """Tell whether there is a report of the job's progress that was not told."""
        return self._words[_REPORT] != 0

    def printed(self) -> str:
        """Return the last lines that the worker has written to stdout and stderr."""
        total = self._words[_PRINTED]
        ring = self._map[_OUTPUT_AT : _OUTPUT_AT + _OUTPUT_ROOM]
        if total <= _OUTPUT_ROOM:
            return ring[:total].decode("utf-8", "replace")
        at = total % _OUTPUT_ROOM
        text = (ring[at:] + ring[:at]).decode("utf-8", "replace")
        return text.partition("\n")[2] or text  # the first line has lost its beginning

    def allow(self, jobs: int, memory: int) -> None:
        """Limit the worker, which begins after this; 0 is no limit."""
        self._words[_MAX_JOBS] = jobs
        self._words[_MAX_MEMORY] = memory

    def limit_memory(self, limit: int) -> None:
        """Let no job of a worker that begins after this go beyond so many bytes."""
        self._words[_LIMIT] = limit

    def put_in_sandbox(self) -> None:
        """Let a worker that begins after this run its jobs in the sandbox."""
        self._words[_SANDBOX] = 1

    def used(self) -> tuple[int, int]:
        """Return the jobs that were run, and the bytes held at the last look."""
        return self._words[_JOBS], self._words[_MEMORY]

    def running(self) -> int:
        """Return the number of the job that runs (or ran at the death), 0 for none."""
        return self._words[_RUNNING]

    def since(self) -> float:
        """Return when the running job began, in monotonic seconds."""
        return self._words[_SINCE] / 1e9

    def kept(self) -> Iterator[bytes]:
        """Yield the kept answers, oldest first."""
        end = self._words[_KEPT]
        for number in range(max(0, end - SLOTS), end):
            slot = number % _RING
            at = _SLOTS_AT + slot * _SMALL
            (size,) = _HEAD.unpack_from(self._map, at)
            if size <= _SMALL_ROOM:
                body = at + _HEAD.size
            else:
                body = _OVERFLOW_AT + slot * _LARGE
            yield self._map[body : body + size]

    def ask_attention(self, wanted: bool) -> None:
        """Make the worker look at its socket before its next job, or stop that."""
        self._words[_ATTENTION] = int(wanted)

    def note_heard(self, job: int) -> None:
        """Note that the answers up to that of `job` have arrived."""
        self._words[_HEARD] = job

    def interrupt(self, job: int) -> None:
        """Name the job that must stop; the signal that follows makes it look."""
        self._words[_INTERRUPT] = job
