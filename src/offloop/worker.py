"""The process that runs jobs: receive, run, reply.

    receive ──▶ inbox ──▶ decode ──▶ run ──▶ encode ──▶ keep, reply
       ▲                                                    │
       └──────────── nothing left to do: wait ◀─────────────┘

Forked from the forkserver, it runs one job at a time, in the order of its inbox, in its
main thread. It decides nothing: which jobs it gets, and what its death means, is the
parent's business. It imports almost nothing, so that a fork is cheap and user code
finds a clean interpreter; neither asyncio nor numpy is here until a job brings them.

What the parent relies on:
- an answer is kept in the status page before the next job begins (`wire.status`);
- after an answer too large for that nothing begins until the parent has heard it:
  jobs that wait or come meanwhile go back;
- the page names the running job before its function is called;
- an interrupted worker says so, begins nothing more and leaves;
- a worker that has used up what it may use says so, and gives back all it gets.
"""

from __future__ import annotations

import faulthandler
import marshal
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections import deque
from types import CoroutineType

from offloop import context, heap, messages, meter, newborn
from offloop.errors import JobInterrupted
from offloop.meter import MemoryLimit, Meter
from offloop.outflow import Outflow
from offloop.printed import keep_printed, send_printed
from offloop.running import run_coroutine, run_fully
from offloop.wire import chunks, codec, failures
from offloop.wire.channel import Channel, make_context
from offloop.wire.functions import FunctionCache
from offloop.wire.records import Records
from offloop.wire.status import StatusPage
from offloop.workspace import Workspace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import Any

# An answer waits for companions until so long after its job has begun, so that short
# jobs share a message.
_HOLD_NS = 250_000

# A message that comes within this time makes the worker expect the next one as soon.
_BRISK_NS = 200_000

# After this many idle seconds freed memory goes back to the system.
_IDLE = 1.0

# Time that unsent answers get when the worker leaves.
_LINGER = 5.0


def main(number: int, address: str, files: tuple[int, ...], setup: bytes | None) -> int:
    """Run a worker until it is told to stop; returns its exit code.

    Args:
        number: of this worker in its pool.
        address: path of the parent's socket.
        files: descriptors of the status page, of the memory with arguments, and of that
            for results.
        setup: the encoded initializer and its arguments, or None.
    """
    newborn.begin()
    page, requests, results = files
    StatusPage.prepare_last_words(page)
    faulthandler.enable(file=page, all_threads=False)
    faulthandler.register(messages.DUMP_SIGNAL, file=page, all_threads=True)
    status = StatusPage(page)
    keep_printed(status.note_printed)
    zmq_context = make_context()
    channel = (Channel.settled if status.sandboxed() else Channel)(zmq_context)
    channel.connect(address)
    try:
        workspace = Workspace(requests, results)
        return Worker(number, channel, status, workspace).run(setup)
    finally:
        channel.close(linger=_LINGER)
        zmq_context.term()
        _leave()


class Worker:
    """Runs the jobs that arrive over `channel`, one after the other."""

    def __init__(
        self, number: int, channel: Channel, page: StatusPage, workspace: Workspace
    ) -> None:
        self._number = number
        self._channel = channel
        self._page = page
        self._workspace = workspace
        self._functions = FunctionCache()
        #: functions that were resolved, with their names: the hot half of `_functions`
        self._resolved: dict[int, tuple[Callable[..., Any], str]] = {}
        #: calls that have arrived and not begun
        self._inbox: deque[tuple[Any, ...]] = deque()
        #: large arguments of those calls, by job
        self._arrived: dict[int, list[memoryview] | OSError] = {}
        #: answers that were not sent yet, and their buffers in the same order
        self._answers: list[tuple[Any, ...]] = []
        self._buffers: list[Any] = []
        #: all of them are results that need no further word
        self._results_only = True
        #: when the job of the oldest of `_answers` began, in monotonic nanoseconds
        self._held_since = 0
        #: they have waited long enough for companions
        self._held_long = False
        #: modules imported for a function that left no thread and no open file
        self._imported: list[str] = []
        #: number of the latest job if its answer was too large to be kept, else 0
        self._unsafe = 0
        #: number of the job whose user code is on the stack now; 0 for none
        self._in_job = 0
        #: what sends the parts of the job that runs now; None if that is no stream
        self._flow: Outflow | None = None
        #: the call of the latest job, and what it was told of itself if it has asked
        self._call: tuple[Any, ...] = ()
        self._told: tuple[tuple[Any, ...], context.JobContext] | None = None
        #: True once this job was asked to stop, so that it is asked once
        self._asked = False
        self._stopping = False
        #: counts what it uses; None while nothing is limited
        self._meter: Meter | None = None
        #: keeps jobs from taking more memory; None if they may
        self._limit: MemoryLimit | None = None
        #: gives up rights before the first job; None if nothing is to be given up
        self._before_first: Callable[[], None] | None = None
        #: it has used up what it may use: nothing begins any more
        self._spent = False
        #: takes what jobs log and print; None if that goes its own way
        self._records: Records | None = None
        #: the last message came soon, with one job: the next one is worth looking for
        self._brisk = False

    def run(self, setup: bytes | None) -> int:
        """Serve until STOP or an interrupt; returns the exit code."""
        if not self._set_up(setup):
            return 1
        try:
            while not self._stopping:
                self._take(self._next_message())
                self._work()
        except JobInterrupted:
            # The signal came in the moment between the job's end and our noting it.
            self._leave_interrupted(self._page.running())
        self._flush()
        return 0

    # Messages

    def _set_up(self, setup: bytes | None) -> bool:
        limit = self._page.memory_limit()
        if limit:
            self._limit = MemoryLimit(limit)
        if self._page.sandboxed():
            from offloop import sandbox

            self._before_first = sandbox.enter
        try:
            if setup is not None:
                initializer, initargs = pickle.loads(setup)
                initializer(*initargs)
        except BaseException:
            why = traceback.format_exc()
            self._page.say_last(why)
            self._channel.send((messages.BROKEN, why))
            return False
        heap.keep_freed()
        context.set_source(self._job_context)
        signal.signal(messages.WAKE_SIGNAL, self._woken)
        counts = Meter(self._page, heap.return_freed)
        self._meter = counts if counts.needed else None
        self._channel.set_timeout(_IDLE)
        self._channel.send((messages.READY, os.getpid()))
        return True

    def _next_message(self) -> tuple[Any, ...]:
        if self._brisk:
            message = self._channel.receive_soon()
            if message is not None:
                return message
        asleep_ns = time.monotonic_ns()
        message = self._channel.receive()
        while message is None:
            heap.return_freed()
            self._flush()  # of large arguments, which are used no more
            if self._workspace.trim(time.monotonic()) is None:
                self._channel.set_timeout(None)
            message = self._channel.receive()
        self._channel.set_timeout(_IDLE)
        # Many jobs at a time come to a machine that has better use for its cores.
        one = message[0] == messages.JOBS and len(message[1]) == 1
        self._brisk = one and time.monotonic_ns() - asleep_ns < _BRISK_NS
        return message

    def _take(self, message: tuple[Any, ...]) -> None:
        kind = message[0]
        if kind == messages.JOBS:
            if len(message) > 2:
                self._take_news(*message[2:])
            calls = message[1]
            for call in calls:
                if len(call) > 3 and call[3]:
                    self._arrived[call[0]] = self._see(call[3])
            self._inbox.extend(calls)
        elif kind == messages.RECALL:
            self._give_back(set(message[1]))
        elif kind == messages.MORE:
            if self._flow is not None and self._flow.job == message[1]:
                self._flow.more(*message[2:])
        elif kind == messages.LOGS:
            self._send_logs(*message[1:])
        elif kind == messages.STOP:
            self._stopping = True

    def _send_logs(self, levels: dict[str, int] | None, lines: bool) -> None:
        """Send what jobs log from now on, and what they print if that is wanted."""
        self._records = Records(
            lambda rows, dropped: self._channel.send((messages.SAID, rows, dropped)),
            self._running_job,
            self._note_unsent,
            self._page.note_printed,
        )
        if levels is not None:
            self._records.listen(levels)
        if lines:
            send_printed(self._records.take_printed)

    def _running_job(self) -> tuple[int, str]:
        if not self._in_job:
            return 0, ""
        return self._in_job, self._resolved[self._call[1]][1]

    def _note_unsent(self) -> None:
        self._results_only = False  # then the next flush looks what there is

    def _see(self, places: list[Any]) -> list[memoryview] | OSError:
        """Return large arguments, or why they cannot be seen: their owner has gone."""
        try:
            return self._workspace.views(places)
        except OSError as error:
            return error

    def _take_news(
        self,
        definitions: list[tuple[int, bytes]],
        forgotten: list[int],
        puts: list[tuple[int, list[Any]]],
        forgotten_puts: list[int],
        freed: list[int],
        clients: Sequence[int] = (),
    ) -> None:
        for identity, definition in definitions:
            self._functions.learn(identity, definition)
        self._functions.forget(forgotten)
        for identity in forgotten:
            self._resolved.pop(identity, None)
        self._workspace.learn_puts(puts)
        self._workspace.forget_puts(forgotten_puts)
        self._workspace.give_back(freed)
        self._workspace.forget_clients(clients)

    def _listen(self) -> None:
        """Take what has arrived without beginning anything."""
        while (message := self._channel.receive_nowait()) is not None:
            self._take(message)

    def _wait(self) -> None:
        """Wait for a message, for a while, and take it."""
        self._tell_report()  # a signal that comes here could not have it told
        message = self._channel.receive()
        if message is not None:
            self._take(message)

    def _give_back(self, unwanted: set[int]) -> None:
        """Return those of `unwanted` that have not begun; answers even if none has.

        A stream that has begun is closed.
        """
        if self._flow is not None and self._flow.job in unwanted:
            self._flow.close_asked()
        kept: deque[tuple[Any, ...]] = deque()
        returned = []
        for call in self._inbox:
            if call[0] in unwanted:
                returned.append(call[0])
                self._arrived.pop(call[0], None)
            else:
                kept.append(call)
        self._inbox = kept
        self._channel.send((messages.RETURNED, returned))

    def _decline_all(self) -> None:
        """Return all jobs, though nobody has asked for them."""
        self._channel.send((messages.DECLINED, [call[0] for call in self._inbox]))
        self._inbox.clear()
        self._arrived.clear()

    def _flush(self) -> None:
        self._held_long = False
        released = self._workspace.released()
        if self._results_only and not self._imported and not released:
            if self._answers:
                self._channel.send((messages.RESULTS, self._answers))
                self._answers = []
            return
        if self._records is not None:
            self._records.end_lines()
            self._records.flush()
        message = (messages.ANSWERS, self._answers, self._imported, released)
        self._channel.send(message, self._buffers)
        self._answers = []
        self._buffers = []
        self._imported = []
        self._results_only = True

    # Jobs

    def _work(self) -> None:
        """Run the inbox, then send what is left to send."""
        page = self._page
        while self._inbox:
            if page.attention():
                self._listen()
                if not self._inbox:
                    break
            if self._spent or (self._unsafe and page.heard() != self._unsafe):
                self._decline_all()
                break
            call = self._inbox.popleft()
            self._unsafe = 0 if self._run_job(call) else call[0]
            if self._meter is not None and not self._stopping:
                del call  # what the job was given is not what it keeps
                self._measure(self._meter)
            if self._limit is not None and self._limit.was_exceeded:
                self._be_spent(meter.LIMIT)  # libraries may be in an odd state now
            if self._unsafe or self._held_long:
                # Its answer is only in ZeroMQ's hands: nothing may begin, and perhaps
                # crash, before the parent has it. The page goes on naming this job.
                self._flush()
        self._flush()
        if not self._unsafe:
            page.rest()

    def _run_job(self, call: tuple[Any, ...]) -> bool:
        """Run one job and answer for it; True if the answer is safe from a crash."""
        job = call[0]
        page = self._page
        started_ns = time.monotonic_ns()
        page.begin(job, started_ns)
        name = ""
        many = len(call) > 3 and call[6]
        payload: Any
        out: list[Any] = []
        places: list[Any] = []
        large: Any = ()
        args: Any = ()
        kwargs: Any = {}
        value: Any = None
        try:
            function, name = self._resolved.get(call[1]) or self._resolve(call[1])
            encoded = call[2]
            if len(call) > 3:
                large = self._arrived.pop(job, ())
                if isinstance(large, OSError):
                    raise large
                if encoded is None:
                    encoded = large.pop()
            args, kwargs = codec.decode_call(encoded, large)
            self._call = call
            self._asked = False
            self._in_job = job
            if self._limit is not None:
                self._limit.impose()
            if self._before_first is not None:
                self._enter_sandbox(self._before_first)
            if page.interrupted() == job:  # the signal came before that line
                raise JobInterrupted
            if many or (len(call) > 3 and call[7]):
                value = run_fully(function, args, kwargs, call, name, self._stream)
            else:
                value = function(*args, **kwargs)
                if type(value) is CoroutineType:
                    value = run_coroutine(value)
            self._in_job = 0
            if self._limit is not None:
                self._limit.lift()
            encode = chunks.encode if many is True else codec.encode_result
            payload, out = encode(value, name)
            status = messages.OK
            if out or (type(payload) is bytes and len(payload) >= codec.OUT_OF_BAND):
                payload, places, out = self._workspace.place(payload, out)
        except JobInterrupted:
            self._in_job = 0
            return self._leave_interrupted(job)
        except BaseException as error:
            self._in_job = 0
            if self._limit is not None:
                self._limit.lift()
                error = self._limit.named(error, job, name)
            payload = failures.encode_error(error, job_id=job, function=name)
            status = messages.ERROR
            places, out = [], []  # of a result for which there was no memory
        self._tell_report()
        # What the parent may have back is found out before it is told of the end.
        large = args = kwargs = value = encoded = None
        ended_ns = time.monotonic_ns()
        body = payload, started_ns / 1e9
        run_time = (ended_ns - started_ns) / 1e9
        if status == messages.OK and not places:
            answer: tuple[Any, ...] = job, body, run_time
        else:
            answer = job, body, run_time, status, places
        # The end of a stream is not kept: its parts may be lost with the process.
        whole = not out and (not many or many is True)
        kept = whole and page.keep(marshal.dumps(answer, 2))
        if not self._answers:
            self._held_since = started_ns  # one that ran long has no companions soon
        self._held_long = ended_ns - self._held_since > _HOLD_NS
        self._answer(answer, out)
        return kept

    def _stream(self, call: tuple[Any, ...], name: str, make: Callable[[], Any]) -> Any:
        """Send what a generator yields; returns its value."""
        ends = self._channel, self._workspace, self._page
        way = self._listen, self._wait, self._heed
        self._flow = Outflow(call[0], name, call[6], *ends, *way)
        try:
            return self._flow.run(make())
        finally:
            self._flow = None

    def _answer(self, answer: tuple[Any, ...], buffers: list[Any]) -> None:
        self._answers.append(answer)
        if len(answer) > 3:
            self._results_only = False
            self._buffers.extend(buffers)

    def _enter_sandbox(self, enter: Callable[[], None]) -> None:
        """Give up rights, once the socket is connected: a job has come through it."""
        enter()
        self._before_first = None

    def _measure(self, meter: Meter) -> None:
        """Count the job that has just ended; if it was the last one, say so.

        That goes ahead of the job's answer, which would bring another one.
        """
        self._call = ()
        self._told = None
        used_up = meter.job_ended()
        if used_up:
            self._be_spent(used_up)

    def _be_spent(self, used_up: int) -> None:
        if not self._spent:
            self._spent = True
            self._channel.send((messages.SPENT, used_up))

    def _resolve(self, identity: int) -> tuple[Callable[..., Any], str]:
        before = _footprint()
        function = self._functions.get(identity)
        name = getattr(function, "__qualname__", None) or repr(function)
        found = self._resolved[identity] = (function, name)
        # The parent's forkserver may import these too: they began no thread, and
        # opened nothing (a connection, say) that all workers would then share.
        if _footprint() == before:
            self._imported.extend(self._functions.imported)
        self._functions.imported.clear()
        return found

    def _job_context(self) -> context.JobContext | None:
        return self._describe_job() if self._in_job else None

    def _describe_job(self) -> context.JobContext:
        if self._told is None or self._told[0] is not self._call:
            attempt, deadline = self._call[4:6] or (1, None)
            told = context.JobContext(
                self._in_job,
                attempt,
                deadline,
                self._number,
                self._workspace.empty,
                lambda job, report: self._channel.send(
                    (messages.PROGRESS, job, report)
                ),
                _in_main_thread,
                self._page.hold_report,
                messages.REPORT_PAUSE,
            )
            self._told = self._call, told
        return self._told[1]

    def _tell_report(self) -> None:
        """Tell what the job has said of its progress, if that was not told."""
        if self._told is not None and self._told[0] is self._call:
            self._told[1].tell_report()

    # Interrupts

    def _woken(self, signum: int, frame: FrameType | None) -> None:
        """Do what the parent asks for, or a thread of the job.

        Runs between two bytecodes of the main thread. Outside user code there is
        nothing to do: the main loop looks by itself before it begins a job.
        """
        if not self._in_job:
            return
        if self._flow is not None:
            if not self._flow.inside:  # it looks before it goes on
                self._flow.alarmed = True
                return
            self._flow.nudged()
        self._heed()

    def _heed(self) -> None:
        """Stop the running job, once, or give others back and tell how far it is."""
        if self._page.interrupted() == self._in_job:
            if not self._asked:
                self._asked = True
                self._describe_job().cancelled = True
                raise JobInterrupted
        else:
            if self._page.attention():
                self._listen()
            self._tell_report()

    def _leave_interrupted(self, job: int) -> bool:
        """Answer for a job that was stopped. The worker leaves: its state is unknown.

        The parent takes this answer for the inbox's return too.
        """
        self._asked = True
        self._stopping = True
        if self._limit is not None:
            self._limit.lift()
        started = self._page.since()
        run_time = time.monotonic() - started
        answer = (job, (b"", started), run_time, messages.INTERRUPTED, ())
        # The parent may notice the end of the process before it reads this.
        self._page.keep(marshal.dumps(answer, 2))
        self._answers.append(answer)
        self._results_only = False
        self._inbox.clear()
        self._arrived.clear()
        return True


def thread_count() -> int:
    """Return how many threads this process has, those of C libraries included."""
    try:
        return len(os.listdir("/proc/self/task"))
    except FileNotFoundError:
        return threading.active_count()


def _in_main_thread() -> bool:
    """Tell whether this thread has the socket; if not, have the one that has woken."""
    main = threading.main_thread()
    if threading.current_thread() is main:
        return True
    assert main.ident is not None  # it runs
    signal.pthread_kill(main.ident, messages.WAKE_SIGNAL)
    return False


def _footprint() -> tuple[int, int]:
    """Return the numbers of threads and of open files, as far as they can be told."""
    try:
        return thread_count(), len(os.listdir("/proc/self/fd"))
    except FileNotFoundError:
        return thread_count(), 0


def _leave() -> None:
    """Do what the interpreter does at its end: the forkserver's stack is below."""
    import atexit

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
