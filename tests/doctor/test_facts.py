"""What is read of a machine, real and made up."""

from __future__ import annotations

import os

import pytest

from offloop import folders, machine
from offloop.doctor import facts


def test_this_machine(monkeypatch):
    monkeypatch.setenv("OFFLOOP_MAX_WORKERS", "3")
    told = facts.gather()
    assert told.workers == 3
    assert told.variables["OFFLOOP_MAX_WORKERS"] == "3"
    assert 1 <= told.affinity <= told.cores
    assert told.memory == machine.memory_allowance()
    assert set(told.packages) >= {"pyzmq", "libzmq", "cloudpickle"}
    assert os.path.isdir(told.sockets)
    assert told.sockets_trouble == ""
    assert told.start_method


def test_no_place_for_sockets_is_a_trouble_and_no_error(monkeypatch):
    def none():
        raise facts.StartError("no directory can be made")

    monkeypatch.setattr(folders, "Folder", none)
    assert facts.gather().sockets == ""
    assert facts.gather().sockets_trouble == "no directory can be made"


@pytest.fixture
def group(tmp_path):
    """Make a control group below a root, and tell both."""
    (tmp_path / "membership").write_text("0::/app\n")
    folder = tmp_path / "root" / "app"
    folder.mkdir(parents=True)
    return folder, (str(tmp_path / "root"), str(tmp_path / "membership"))


def test_how_often_a_quota_has_stopped_the_group(group):
    folder, where = group
    assert facts.throttled(*where) == 0.0
    (folder / "cpu.stat").write_text("usage_usec 5\nnr_periods 200\nnr_throttled 50\n")
    assert facts.throttled(*where) == 0.25
    (folder / "cpu.stat").write_text("usage_usec 5\nnr_periods 0\nnr_throttled 0\n")
    assert facts.throttled(*where) == 0.0


def test_how_many_processes_a_group_may_start(group):
    folder, where = group
    assert facts.processes_left(*where) is None
    (folder / "pids.current").write_text("30\n")
    (folder / "pids.max").write_text("max\n")
    assert facts.processes_left(*where) is None
    (folder / "pids.max").write_text("100\n")
    assert facts.processes_left(*where) == 70
