"""Functions and types for tests of large payloads; unlike `jobs`, it needs numpy."""

from __future__ import annotations

import os
import resource
import signal
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

import jobs
from offloop import current_job

#: what jobs leave behind for those after them in the same worker
kept = []


@dataclass
class Measurement:
    """As users have them: arrays within an object within containers."""

    name: str
    samples: np.ndarray
    more: dict = field(default_factory=dict)


class Pausing:
    """Stops whoever pickles it, in the middle, until a gate opens."""

    def __init__(self, reached, until):
        self.gates = reached, until

    def __reduce__(self):
        jobs.meet(*self.gates)
        return str, ("paused",)


class Unreadable:
    """Can be sent, and fails where it is read."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise ValueError("not to be read")


def describe(value):
    """Say what a job sees of an array, a view or anything with bytes."""
    if isinstance(value, memoryview):
        return type(value), value.format, value.shape, value.readonly, value.tobytes()
    if isinstance(value, np.ndarray):
        flags = value.flags
        order = flags.c_contiguous, flags.f_contiguous
        shape = value.dtype, value.shape, order, flags.writeable
        return type(value), *shape, value.tobytes()
    return type(value), value


def describe_and_return(value):
    return describe(value), value


def same(value):
    return value


def are_one(first, *others, **more):
    return all(other is first for other in (*others, *more.values()))


def keep(value):
    kept.append(value)


def total_of_kept():
    return [float(np.sum(value)) for value in kept]


def add_in_place(array, amount, path, attempts):
    """Change the argument, and die before anything is said, `attempts` times."""
    before = float(array.sum())
    array += amount
    with Path(path).open("a") as file:
        file.write(f"{before}\n")
    if current_job().attempt <= attempts:
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    return float(array.sum())


def fail_in_place(array):
    """Change the argument, and fail the first time."""
    array += 1
    if current_job().attempt == 1:
        raise ValueError("once more")
    return float(array.sum())


def fill(size, value):
    """Return an array without a copy."""
    array = current_job().empty(size, "u1")
    array[:] = value
    return array


def ones(size):
    return np.ones(size, "u1")


def ones_without_memory(size):
    """Return an array where the system has no memory for it: no file may be written."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    return np.ones(size, "u1")


def end_lack_of_memory():
    unlimited = resource.RLIM_INFINITY
    resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited, unlimited))


def fill_and_keep(size, value):
    array = fill(size, value)
    kept.append(array)
    return array


def fill_part(size, value):
    """Return the middle of a larger array, without a copy."""
    array = fill(size, value)
    return array[size // 4 : size // 2]


def small_empty():
    array = current_job().empty(3)
    return array.shape, array.dtype.str, array.flags.owndata


def total(*arrays):
    return [float(array.sum()) for array in arrays]


def look(value):
    """Say what a job sees of something that was put."""
    return describe(value["array"])[1:5], value["name"], bytes(value["data"][:3])


def write_to(array):
    array[0] = 1


def hold(value, reached, until):
    """Look at a value before and after a gate."""
    before = float(np.sum(value))
    jobs.meet(reached, until)
    return before, float(np.sum(value))


def unreadable():
    return [bytes(100_000), Unreadable()]
