"""A worker keeps the memory that it frees while it works, where that can be said."""

from __future__ import annotations

import ctypes
import sys

import pytest

from offloop import heap


def test_memory_is_tuned_where_the_library_is_glibc(monkeypatch):
    asked = []

    class Library:
        gnu_get_libc_version = mallopt = malloc_trim = None

        def __init__(self):
            self.mallopt = lambda option, value: asked.append((option, value))
            self.malloc_trim = lambda pad: asked.append(pad)

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Library())
    heap.keep_freed()
    heap.return_freed()
    assert asked == [(-3, 1 << 30), (-1, 1 << 30), 0]


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_memory_is_left_alone_where_it_is_not(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    heap.keep_freed()
    heap.return_freed()
    assert heap._glibc() is None
