"""How numpy's arrays are pickled: their bytes beside the pickle, whatever their type.

numpy does that by itself for an array whose type is `ndarray` and whose bytes are in a
row. All others (mapped from a file, records, with gaps) it copies into the pickle, the
GIL held, and they lose that they were read-only. Here they are seen as plain arrays,
and get their type back where they are read.

numpy is asked for nothing until somebody has imported it.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Reduce: TypeAlias = Callable[[Any], Any]

#: bytes of an array that may be copied, or visited, on an event loop
_BRIEF = 64 * 1024

#: for a pickler in a thread, and for one on a loop; empty while there is no numpy
_patient: dict[type, Reduce] = {}
_hasty: dict[type, Reduce] = {}


class TooLong(Exception):
    """It would be copied while an event loop waits."""


def reducers(*, hasty: bool = False) -> dict[type, Reduce]:
    """Return what belongs into a pickler's `dispatch_table`.

    Args:
        hasty: the pickler must raise `TooLong` instead of copying much.
    """
    if not _patient:
        numpy: Any = sys.modules.get("numpy")
        if not hasattr(numpy, "memmap"):  # it may be in the middle of its import
            return {}
        kinds = (numpy.memmap, numpy.matrix, numpy.recarray)
        subclasses = dict.fromkeys(kinds, _reduce_subclass)
        # Each at one go, the one that is looked at last: other threads are here too.
        _hasty.update({**subclasses, numpy.ndarray: _reduce_hastily})
        _patient.update({**subclasses, numpy.ndarray: _reduce})
    return _hasty if hasty else _patient


def _reduce(array: Any) -> Any:
    if array.flags.forc or array.dtype.hasobject:
        return array.__reduce_ex__(5)
    return _reduce_gaps(array)


def _reduce_hastily(array: Any) -> Any:
    flags = array.flags
    if array.nbytes > _BRIEF and (array.dtype.hasobject or not flags.forc):
        raise TooLong
    return _reduce(array)


def _reduce_gaps(array: Any) -> Any:
    """Reduce an array to one without gaps, which lies in memory in the same order.

    numpy would make it writable, and its last axis the one whose items lie in a row.
    """
    row = array.copy("K")
    row.flags.writeable = array.flags.writeable
    if row.flags.forc:
        return row.__reduce_ex__(5)
    axes = sorted(range(row.ndim), key=lambda axis: -row.strides[axis])
    back = sorted(range(row.ndim), key=axes.__getitem__)
    return _arrange, (row.transpose(axes), tuple(back))


def _arrange(array: Any, axes: tuple[int, ...]) -> Any:
    return array.transpose(axes)


def _reduce_subclass(array: Any) -> Any:
    return _restore, (_plain(array), type(array))


def _plain(array: Any) -> Any:
    import numpy

    return array.view(numpy.ndarray)


def _restore(plain: Any, kind: type) -> Any:
    return plain.view(kind)
