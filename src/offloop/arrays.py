"""Numpy arrays in memory that somebody else provides.

numpy is imported when the first array is made: a process that needs none never loads
it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Smaller arrays travel inside of messages; memory of their own would only cost time.
_SMALL = 16 * 1024


def empty(
    allocate: Callable[[int], memoryview | None],
    shape: Any,
    dtype: Any,
    *,
    zero: bool = False,
) -> Any:
    """Return a new array, its content arbitrary.

    Args:
        allocate: returns memory of so many bytes, or None: then the array is an
            ordinary one.
        shape: an int or a tuple of ints.
        dtype: anything that `numpy.dtype` takes.
        zero: its bytes are zeros, as in an array that `numpy.zeros` makes.

    Raises:
        TypeError: the dtype holds Python objects, which no other process can read.
    """
    import numpy

    kind = numpy.dtype(dtype)
    if kind.hasobject:
        raise TypeError(f"dtype {kind} holds Python objects: they cannot be shared")
    sizes = (shape,) if isinstance(shape, int | numpy.integer) else tuple(shape)
    size = kind.itemsize
    for length in sizes:
        size *= int(length)
    # A negative length is for numpy too: it has the right words.
    valid = size >= _SMALL and all(length >= 0 for length in sizes)
    memory = allocate(size) if valid else None
    if memory is None:
        return numpy.zeros(shape, kind) if zero else numpy.empty(shape, kind)
    if zero:
        numpy.frombuffer(memory, "u1").fill(0)
    return numpy.frombuffer(memory, kind).reshape(sizes)
