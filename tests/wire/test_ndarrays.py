"""Arrays of numpy's: beside the pickle, with type, order and flags."""

from __future__ import annotations

import pickle
import sys

import numpy as np
import pytest

from offloop.wire import bulk, ndarrays

BIG, SMALL = 100_000, 10


def through(array):
    buffers = []
    payload = bulk.dump(array, buffers.append)
    return pickle.loads(payload, buffers=buffers), len(payload)


@pytest.mark.parametrize("kind", [np.memmap, np.matrix, np.recarray])
def test_subclasses_are_not_copied_and_keep_type_and_flags(tmp_path, kind):
    if kind is np.memmap:
        array = np.memmap(tmp_path / "file", "f8", "w+", shape=(BIG,))
    elif kind is np.matrix:
        array = np.ones((BIG // 10, 10)).view(np.matrix)
    else:
        array = np.zeros(BIG, "f8,i4").view(np.recarray)
    array.flags.writeable = False
    copy, size = through(array)
    assert type(copy) is kind
    assert copy.dtype == array.dtype
    assert not copy.flags.writeable
    assert size < 1000
    np.testing.assert_array_equal(copy, array)


@pytest.mark.parametrize("size", [SMALL, BIG])
def test_arrays_with_gaps_become_rows(size):
    array = np.arange(2 * size)[::2]
    copy, payload = through(array)
    np.testing.assert_array_equal(copy, array)
    assert payload < 1000
    assert copy.flags.writeable


@pytest.mark.parametrize("size", [SMALL, BIG])
@pytest.mark.parametrize("writeable", [True, False])
def test_arrays_with_gaps_keep_the_order_of_their_axes(size, writeable):
    array = np.arange(size * 24.0).reshape(size, 2, 3, 4)
    array = array.transpose(2, 0, 3, 1)[1:, :, ::2]
    array.flags.writeable = writeable
    copy, _ = through(array)
    np.testing.assert_array_equal(copy, array)
    assert copy.strides == array.copy("K").strides
    assert copy.flags.writeable == writeable


@pytest.mark.parametrize(
    ("array", "hasty"),
    [
        (np.arange(BIG), True),
        (np.asfortranarray(np.ones((300, 300))), True),
        (np.arange(2 * BIG)[::2], False),
        (np.arange(2 * SMALL)[::2], True),
        (np.full(BIG, None), False),
        (np.full(SMALL, None), True),
        (np.ones((BIG, 4)).view(np.matrix)[:, :2], False),
    ],
)
def test_what_would_be_copied_is_not_for_an_event_loop(array, hasty):
    beside = []
    payload = bulk.probe([array], 10**6, beside.append)
    assert (payload is not None) == hasty
    if payload is not None:
        np.testing.assert_array_equal(pickle.loads(payload, buffers=beside)[0], array)


def test_before_numpy_is_imported_there_is_nothing_to_know(monkeypatch):
    monkeypatch.setattr(ndarrays, "_patient", {})
    monkeypatch.setattr(ndarrays, "_hasty", {})
    for found in (None, object()):  # the latter: in the middle of its import
        monkeypatch.setitem(sys.modules, "numpy", found)
        assert ndarrays.reducers() == ndarrays.reducers(hasty=True) == {}
