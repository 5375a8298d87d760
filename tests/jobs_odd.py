"""Objects and functions that break where they should not: on the way, in a job, after.

Each class names what goes wrong and when; pickling happens where the object is sent
from, unpickling where it arrives.
"""

from __future__ import annotations

import ctypes
import pickle
import sys


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
