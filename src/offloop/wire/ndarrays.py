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
    """Reduce a plain array; one with gaps is copied with the GIL released."""
    if array.nbytes > _BRIEF and not array.flags.forc and not array.dtype.hasobject:
        array = array.copy()
    return array.__reduce_ex__(5)


def _reduce_hastily(array: Any) -> Any:
    if array.nbytes > _BRIEF and (array.dtype.hasobject or not array.flags.forc):
        raise TooLong
    return array.__reduce_ex__(5)


def _reduce_subclass(array: Any) -> Any:
    return _restore, (_plain(array), type(array))


def _plain(array: Any) -> Any:
    import numpy

    return array.view(numpy.ndarray)


def _restore(plain: Any, kind: type) -> Any:
    return plain.view(kind)
