"""Every function that tests send to workers, in one light module.

Light: each pool of the tests imports it in its first workers. What takes a while to
import is imported where it is used.

Jobs and tests wait for each other at gates (`reach`, `wait_for`), never by time.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import sys
import threading
import zlib

from offloop import current_job, offload


def add(a, b=0):
    return a + b


def nothing():
    return None


def echo(*args, **kwargs):
    return args, kwargs


def pid():
    return os.getpid()


def environment(name):
    return os.environ.get(name)


def apply(function, *args):
    return function(*args)


async def apply_async(function, *args):
    return function(*args)


def raise_value_error(text="bad"):
    raise ValueError(text)


def raise_from_cause():
    try:
        {}["missing"]
    except KeyError as error:
        raise ValueError("outer") from error


def raise_this(error):
    raise error


def system_exit():
    raise SystemExit(3)


async def add_async(a, b):
    import asyncio

    await asyncio.sleep(0)
    return a + b


def generate():
    yield 1


def die_by(signum):
    os.kill(os.getpid(), signum)
    signal.pause()  # until the signal has arrived


INVERSE = bytes(range(255, -1, -1))


def invert(data, checksum, fate):
    """Invert every bit of some bytes, in place where that is possible.

    Args:
        data: anything with bytes in a row.
        checksum: what they must have, whatever a former attempt has done to them.
        fate: how this attempt ends, once it has changed what it was given.
    """
    if zlib.crc32(data) != checksum:
        raise ValueError("these are not the bytes that were sent")
    view = memoryview(data)
    inverted = view.tobytes().translate(INVERSE)
    if view.readonly:
        changed = inverted if type(data) is bytes else 255 - data
    else:
        view[:] = memoryview(inverted).cast(view.format)
        changed = data
    if fate == "die" or (fate == "die once" and current_job().attempt == 1):
        die_by(signal.SIGKILL)
    return changed


def die_with_code(code):
    os._exit(code)


def segfault():
    ctypes.string_at(0)


def unpicklable_result():
    return (item for item in ())


def reach(gate):
    """Tell the test that the job has come so far."""
    with open(gate, "w") as file:
        file.write(f"{os.getpid()}\n")


def wait_for(gate):
    """Wait until the test lets the job pass."""
    with open(gate, "rb", buffering=0) as file:
        file.read(1)


def meet(reached, until):
    """Tell the test that the job runs, then stay until it may end."""
    reach(reached)
    wait_for(until)
    return "met"


def note_and_add(path, a, b):
    """Append a line for each run: shows how often the job was run."""
    from pathlib import Path

    with Path(path).open("a") as file:
        file.write(f"{a}\n")
    return a + b


def die_first_time(path):
    """Kill the worker in the first run, return in the second."""
    from pathlib import Path

    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    return current_job().attempt


def loop_in_python(reached):
    reach(reached)
    while True:
        pass


def loop_in_c(reached):
    """Hold the interpreter in one C call: no signal handler of Python's ever runs."""
    reach(reached)
    sum(itertools.repeat(0))


def clean_up_when_stopped(reached, cleaned):
    from pathlib import Path

    try:
        reach(reached)
        while True:
            pass
    finally:
        Path(cleaned).touch()


def swallow_exceptions(reached):
    """Eat every Exception: the request to stop must get through all the same."""
    reach(reached)
    while True:
        try:
            while True:
                pass
        except Exception:
            continue


def describe_job():
    job = current_job()
    return job.id, job.attempt, job.deadline, job.worker


initialized_with = None


def initialize(value):
    global initialized_with
    initialized_with = value


def initialized():
    return initialized_with


def fail_to_initialize():
    raise RuntimeError("no database today")


def fail_while(path):
    """Fail to initialize for as long as the path exists."""
    if os.path.exists(path):
        raise RuntimeError("no database today")


def die_when_told(gate):
    """Let this process end by itself, at whatever moment one byte comes for it."""
    import threading

    def wait():
        with open(gate, "rb", buffering=0) as file:
            file.read(1)
        os._exit(3)

    threading.Thread(target=wait, daemon=True).start()


def modules():
    import sys

    return sorted(sys.modules)


def spawn_grandchild(reached, until):
    """Start a process of one's own, tell its number, and stay."""
    import subprocess

    child = subprocess.Popen(["sleep", "600"])
    with open(reached, "w") as file:
        file.write(f"{child.pid}\n")
    wait_for(until)


def spawn_apart(reached, until, way):
    """Start a process that leaves this one's group, and perhaps its family; stay."""
    import os
    import subprocess

    tell = 'echo $$ > "$0"; exec sleep 600'
    if way == "session":
        command = ["sh", "-c", tell, reached]
        subprocess.Popen(command, start_new_session=True, env={})
    elif way == "twice":
        command = ["sh", "-c", f"setsid sh -c '{tell}' \"$0\" &", reached]
        subprocess.run(command, check=True)
    elif not (child := os.fork()):
        if not os.fork():
            os.setsid()
            os.execv("/bin/sh", ["sh", "-c", tell, reached])
        os._exit(0)
    else:
        os.waitpid(child, 0)
    if until:
        wait_for(until)


class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y

    def shifted(self, by):
        return Point(self.x + by, self.y + by)

    def __call__(self, factor):
        return self.x * factor


@offload
def doubled(value: int) -> int:
    return 2 * value


@offload(timeout=30, priority=2)
async def doubled_async(value: int) -> int:
    import asyncio

    await asyncio.sleep(0)
    return 2 * value


class Painter:
    def __init__(self, colour: str) -> None:
        self.colour = colour

    @offload
    def paint(self, what: str) -> str:
        return f"{self.colour} {what}"


@offload
def doubled_of_doubled(value: int) -> int:
    """Call another offloaded function inside a job: it runs there."""
    import asyncio

    return asyncio.run(doubled(value)) * 2


_kept = []


def leak(size):
    """Keep so many bytes for good; returns what the process holds then."""
    _kept.append(bytearray(b"x") * size)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill_and_free(size):
    """Hold so many bytes for a moment."""
    held = bytearray(b"x") * size
    del held
    return os.getpid()


def hang_at_exit():
    """Let the end of the process never come."""
    import atexit

    atexit.register(signal.pause)
    return os.getpid()


def take(size):
    """Ask for so many bytes for a moment, and use none of them."""
    return len(bytearray(size))


def hold_in_child(size):
    """Start a process without limits that holds so many bytes for a long time."""
    import subprocess
    import sys

    code = (
        "import resource, time\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))\n"
        f"held = bytearray(b'x') * {size}\n"
        "time.sleep(600)"
    )
    subprocess.run([sys.executable, "-c", code])


# Progress


def report_often(count):
    for step in range(1, count + 1):
        current_job().report(step, count, f"step {step}")
    return count


def report_then_wait(gate):
    current_job().report(0.5, None, "half")
    wait_for(gate)


def report_and_raise():
    current_job().report(3)
    raise ValueError("after the report")


def report_twice(gate, job=None):
    """Say twice in a row how far it is, and then nothing for long."""
    job = job or current_job()
    job.report(1, 2, "the short part")
    job.report(2, 2, "the long part")
    wait_for(gate)


def report_twice_in_a_thread(gate):
    thread = threading.Thread(target=report_twice, args=(gate, current_job()))
    thread.start()
    thread.join()


async def report_by_to_thread():
    import asyncio

    await asyncio.to_thread(current_job().report, 7, 9)


def report_words(words):
    current_job().report(1, 2, words)


def report_nonsense():
    current_job().report("half")


def report_numpy():
    import numpy

    current_job().report(numpy.int64(1), numpy.float32(2))


def print_then(text, function, *args):
    """Print to both streams, log, and go on."""
    import logging

    print(f"{text} to stdout")
    print(f"{text} to stderr", file=sys.stderr)
    logging.getLogger("user").warning("%s by logging", text)
    return function(*args)


async def loop_in_coroutine(reached):
    import asyncio

    await asyncio.sleep(0)
    reach(reached)
    while True:
        pass


def log_all(text):
    """Log in all ways that there are; returns how many records that were."""
    import logging
    import threading

    log = logging.getLogger("user.module")
    log.debug("not to be seen: %s", text)
    log.info("said %s", text, extra={"tenant": "seven", "rest": {"a": 1}})
    try:
        raise_value_error()
    except ValueError:
        log.exception("it failed")
    thread = threading.Thread(target=log.error, args=("from a thread",), name="aside")
    thread.start()
    thread.join()
    log.warning("that is all")
    return 4


def log_many(count):
    """Log more than anybody can read."""
    import logging

    log = logging.getLogger("user.flood")
    for number in range(count):
        log.warning("number %d", number)
