"""What two processes say to each other.

A message is one tuple, its *envelope*, whose first item is the kind; the frames
behind it, if any, are large buffers in the order in which the envelope names them.

    parent → worker                          worker → parent
    JOBS     calls (+ news)                   READY     pid
    RECALL   job numbers                      RESULTS   results
    MORE     job, parts, bytes                PARTS     job, payloads, bytes (+ places)
    LOGS     levels, whether lines too        SAID      rows, dropped
    STOP                                      ANSWERS   answers, imported modules,
                                                        tokens
                                              RETURNED  job numbers (after a RECALL)
                                              DECLINED  job numbers, unasked
                                              SPENT     what is used up
                                              BROKEN    traceback of a failed set-up
                                              PROGRESS  job, done, total, message

    parent → forkserver                      forkserver → parent
    SETUP    initializer                      LISTENING  pid
    FORK     worker, address (+ 3 files)      STARTED    worker, pid (+ pidfd)
    LEARN    module                           EXITED     worker, pid, code, memory, time
    SIGNAL   worker, signal                   LEARNED    module, trouble, still alone
    QUIT                                      FAILED     module, traceback

    client → coordinator                     coordinator → client
    HELLO    version, pid, name (+ file)      WELCOME   jobs, pid
    CALLS    calls, functions, puts           REFUSED   why
    CANCEL   job numbers                      RESULTS   results, frames
    USED     worker, tokens                   ENDINGS   endings
    FORGET   functions, puts                  RETURNED  job numbers
    ASK      number of the question           ROOM      jobs that may come now
    WANT     (more jobs wait)                 PROGRESS  job, report
    MORE     job, parts, bytes                PARTS     job, payloads, bytes, places,
    HURRY    job: what is held back                     worker, frames
                                              FREED     tokens
                                              SIZE      workers
                                              MEMORY    worker, size (+ file)
                                              GONE      workers
                                              DUMPED    number, dumps
                                              SAID      worker, rows, dropped

    primary → child                          child → primary
    BEGIN    role, settings, files (+ files)  READY
    EMPLOY                                    LEAVING   why
    RETIRE   seconds, whether all go          RENEWED   trouble
    PROBE    (+ a connection)                 CLOSED    (nobody comes in any more)
    UNREADY  why, or ""
    RENEW

A *call* is ``(job, function, payload)``, and if there is more to say of it, ``(...,
places, attempt, deadline, many, context)``. A *result* is ``(job, (payload, started),
run time)``, and an *answer* that is more than such a result ``(..., status, places)``.
Times are in seconds, on the monotonic clock, which all processes of a machine share;
`many` is True if the function is to be called with each item of a list, and a number if
it is a generator function, which may be so many parts ahead of its consumer; the
context is what `wire.carried` makes of the caller's, if anything. A payload is what
`wire.codec` makes. Calls and answers travel in lists, because many small jobs then
share one message. The *news* are definitions of functions and the numbers of those that
may be forgotten, the same for objects that were put, tokens, and clients that have
gone.

A client's call goes on with ``(..., deadline, run_timeout, priority, retries,
on_cancel, key, max_concurrency, many, attempts, context, places, puts)``, and its
result with ``(..., worker, sent, places)``. An *ending* is ``(job, ending, detail,
worker, sent, run time, retries left)``.

Large buffers are named by their *places*, ``(token, offset, size, mode)`` in the memory
of the sender, or with a fifth item ``(client, path, inode)`` in that of another
process; in an answer, None stands for a frame behind the envelope; a payload that is
None is the last of them. A token comes back when the receiver uses its buffer no more.

There is no acknowledgement and no heartbeat: an answer gives its credit back, a
function's definition rides with the first job that needs it, and a death is told by the
process.
"""

from __future__ import annotations

import signal

#: makes a worker look whether its job must stop, or jobs must go back; a real-time one
#: where there are some, because user code owns the ordinary ones
WAKE_SIGNAL: int = getattr(signal, "SIGRTMIN", signal.SIGUSR1 - 7) + 7

#: makes a worker write what it is doing, in Python and whatever C code it is in
DUMP_SIGNAL: int = WAKE_SIGNAL + 1

#: a worker tells how far a job is once in so many seconds at most
REPORT_PAUSE = 0.05

# parent → worker
JOBS = 1
RECALL = 2
STOP = 3
MORE = 4
LOGS = 5

# worker → parent
READY = 11
RESULTS = 12
RETURNED = 13
BROKEN = 14
ANSWERS = 15
SPENT = 16
PROGRESS = 17
PARTS = 18
DECLINED = 19
SAID = 20

# client → coordinator, and back (beside RESULTS, RETURNED and PROGRESS)
HELLO = 41
CALLS = 42
CANCEL = 43
USED = 44
FORGET = 45
ASK = 46
WANT = 47
HURRY = 48

WELCOME = 50
ENDINGS = 51
ROOM = 52
FREED = 53
SIZE = 54
GONE = 55
DUMPED = 56
REFUSED = 57
MEMORY = 58

# how a large buffer is seen; PRIVATE: changes stay with the one who makes them
WRITABLE = 0
READONLY = 1
PRIVATE = 2

# status of an answer
OK = 0
ERROR = 1
INTERRUPTED = 2

# parent → forkserver, and back, over the lifeline
SETUP = 21
FORK = 22
LEARN = 23
SIGNAL = 24
QUIT = 25

LISTENING = 31
STARTED = 32
EXITED = 33
LEARNED = 34
FAILED = 35

# primary → child, and back (beside READY), over the lifeline
BEGIN = 61
EMPLOY = 62
RETIRE = 63
PROBE = 64
UNREADY = 65
RENEW = 66

LEAVING = 71
RENEWED = 72
CLOSED = 73

# old primary → new one, and back, over the lifeline
SOCKET = 81
INHERIT = 82
GO = 83

TAKEN = 91
HOPELESS = 92
