"""Objects and functions that break where they should not: on the way, in a job, after.

Each class names what goes wrong and when; pickling happens where the object is sent
from, unpickling where it arrives.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import sys
from dataclasses import dataclass


def crash(*args):
    """Die by a segmentation fault."""
    ctypes.string_at(0)


def leave():
    sys.exit(1)


def fail(error):
    raise error("as asked")


def make(cls):
    """Return an instance: its troubles begin on the way back."""
    return cls()


class CrashAtPickle:
    def __reduce__(self):
        crash()


class CrashAtUnpickle:
    def __reduce__(self):
        return crash, ()


class ExitAtPickle:
    def __reduce__(self):
        leave()


class ExitAtUnpickle:
    def __reduce__(self):
        return leave, ()


class ErrorAtPickle:
    def __reduce__(self):
        raise pickle.PicklingError("not me")


class ErrorAtUnpickle:
    def __reduce__(self):
        return fail, (pickle.UnpicklingError,)


class ErrorWithOddConstructor(Exception):
    """Pickles well, and cannot be built again from its arguments."""

    def __init__(self, code, *, reason):
        super().__init__(f"{code}: {reason}")
        self.code = code


def raise_odd_error():
    raise ErrorWithOddConstructor(7, reason="tired")


class Plain:
    """Something that a weak reference can point to."""

    def method(self):
        return "called"


def make_plain(_):
    return Plain()


# Jobs that end oddly, or leave the process in an odd state


async def raise_this_async(error):
    raise error


def recurse(depth=0):
    return recurse(depth + 1) + 1


def close_every_file():
    import os

    os.closerange(0, 1024)
    return "closed"


def change_directory(to):
    import os

    os.chdir(to)
    return "changed"


def clear_environment():
    import os

    os.environ.clear()
    return "cleared"


@dataclass(frozen=True)
class FrozenError(Exception):
    """Refuses every attribute that is set the usual way."""

    code: int


def raise_frozen_error(code=7):
    raise FrozenError(code)


def ignore_signals(reached):
    import signal

    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)  # ours among them
    with open(reached, "w") as file:
        file.write("1\n")
    while True:
        pass


def stop_itself(reached):
    import os
    import signal

    with open(reached, "w") as file:
        file.write("1\n")
    os.kill(os.getpid(), signal.SIGSTOP)


def print_much():
    line = "x" * 1000
    for _ in range(100_000):
        print(line)
    return "printed"


def leave_threads():
    import threading

    for _ in range(3):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return threading.active_count()


def leave_process():
    import subprocess

    return subprocess.Popen(["sleep", "600"]).pid


def fork():
    import os

    child = os.fork()
    if not child:
        os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def stop_oneself():
    import os
    import signal

    os.kill(os.getpid(), signal.SIGSTOP)


class ErrorThatCannotBePickled(Exception):
    def __init__(self):
        super().__init__("not portable")
        self.lock = __import__("threading").Lock()


def raise_error_that_cannot_be_pickled():
    raise ErrorThatCannotBePickled


class Loaded:
    """Becomes the number of the process in which it is unpickled."""

    def __reduce__(self):
        return os.getpid, ()


def with_loaded(value):
    return value, Loaded()


def raise_error_of_the_worker_alone():
    """Raise what can be rebuilt in this process, and in no other."""
    raise OnlyThere("where am I")


class OnlyThere(Exception):
    """Remembers where it was born, and refuses to be rebuilt elsewhere."""

    def __reduce__(self):
        return be_born_in, (os.getpid(), *self.args)


def be_born_in(home, text):
    if os.getpid() != home:
        raise LookupError("not at home")
    return OnlyThere(text)


def fail_before_attempt(number):
    """Succeed at last; until then, fail as what may pass does."""
    from offloop import current_job

    attempt = current_job().attempt
    if attempt < number:
        raise ConnectionError(f"attempt {attempt}")
    return attempt


def die_before_attempt(number):
    from offloop import current_job

    attempt = current_job().attempt
    if attempt < number:
        os._exit(1)
    return attempt


def die_after(reached, until):
    """Die when the test says so."""
    from pathlib import Path

    Path(reached).write_text(f"{os.getpid()}\n")
    with open(until) as gate:
        gate.read(1)
    os._exit(1)
