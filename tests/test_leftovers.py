"""Which processes a worker has left is told by a mark, and by nothing else."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from offloop import leftovers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")

_MARKED = """
import os, sys
from offloop import leftovers
leftovers.bear(int(sys.argv[1]))
os.execvpe("sh", ["sh", "-c", "echo ready; exec sleep 600"], {"PATH": os.defpath})
"""


def marked(mark):
    """Return a process that bears a mark, or none, through exec and all."""
    command = [sys.executable, "-c", _MARKED, str(mark)]
    if mark is None:
        command = ["sh", "-c", "echo ready; exec sleep 600"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_only_what_bears_the_brand_is_ended():
    ours, theirs = leftovers.draw_brand(), leftovers.draw_brand()
    marks = [leftovers.make_mark(ours, 1), leftovers.make_mark(ours, 2)]
    marks += [leftovers.make_mark(theirs, 1), None]
    processes = [marked(mark) for mark in marks]
    assert [leftovers.mark_of(process.pid) for process in processes] == marks
    leftovers.end_branded(ours)
    assert [process.wait() for process in processes[:2]] == [-9, -9]
    assert [process.poll() for process in processes[2:]] == [None, None]
    for process in processes:
        process.kill()
        process.communicate()


def test_a_zombie_is_not_chased():
    """Its parent may wait for it when it likes."""
    brand = leftovers.draw_brand()
    process = marked(leftovers.make_mark(brand, 1))
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    leftovers.end_branded(brand)
    process.communicate()
    assert leftovers._kill(process.pid, brand) == []
    assert leftovers.mark_of(process.pid) is None


def test_where_there_is_no_pidfd_nobody_is_ended(monkeypatch):
    brand = leftovers.draw_brand()
    process = marked(leftovers.make_mark(brand, 1))
    monkeypatch.delattr(os, "pidfd_open")
    leftovers.end_branded(brand)
    assert process.poll() is None
    process.kill()
    process.communicate()
