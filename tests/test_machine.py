"""How many cores, and how much memory, a container or a host grants."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from offloop import machine
from offloop.machine import OomKills, cpu_quota, default_max_workers, usable_cores


@pytest.fixture
def tree(tmp_path):
    """Return what writes a tree of control groups and reads the quota from it."""

    def build(files, membership=None):
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        own = tmp_path / "membership"
        if membership is not None:
            own.write_text(membership)
        return cpu_quota(tmp_path / "cgroup", own)

    return build


def v1(folder, quota, period="100000\n"):
    return {
        f"{folder}/cpu.cfs_quota_us": quota,
        f"{folder}/cpu.cfs_period_us": period,
    }


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("200000 100000\n", 2.0),
        ("50000 100000\n", 0.5),
        ("max 100000\n", None),
        ("", None),
        ("200000\n", None),
        ("200000 0\n", None),
    ],
)
def test_version_2_at_the_root_of_a_container(tree, text, quota):
    assert tree({"cpu.max": text}, "0::/\n") == quota


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        (v1("cpu", "150000\n"), 1.5),
        (v1("cpu", "-1\n"), None),
        (v1("cpu", "150000\n", "0\n"), None),
        (v1("cpu", ""), None),
        ({"cpu/cpu.cfs_quota_us": "150000\n"}, None),
    ],
)
def test_version_1_at_the_root_of_a_container(tree, files, quota):
    assert tree(files, "3:cpuset:/\n2:cpu,cpuacct:/\n") == quota


def test_version_2_nested_the_tightest_of_all_groups_binds(tree):
    files = {
        "system.slice/cpu.max": "300000 100000\n",
        "system.slice/app.service/cpu.max": "max 100000\n",
        "system.slice/app.service/worker/cpu.max": "400000 100000\n",
    }
    assert tree(files, "0::/system.slice/app.service/worker\n") == 3.0


def test_version_1_nested_the_tightest_of_all_groups_binds(tree):
    files = v1("cpu/docker", "400000\n") | v1("cpu/docker/abc", "250000\n")
    assert tree(files, "4:memory:/docker/abc\n2:cpuacct,cpu:/docker/abc\n") == 2.5


def test_a_group_of_another_process_does_not_bind(tree):
    files = {
        "mine/cpu.max": "300000 100000\n",
        "other/cpu.max": "100000 100000\n",
        "memory/cpu.max": "100000 100000\n",
    }
    assert tree(files, "5:memory:/memory\n0::/mine\n") == 3.0


def test_a_path_of_the_host_that_does_not_exist_here_leaves_the_root(tree):
    files = {"cpu.max": "200000 100000\n"}
    assert tree(files, "0::/kubepods/pod12/abc\n") == 2.0


def test_a_group_with_a_colon_in_its_name(tree):
    assert tree({"a:b/cpu.max": "200000 100000\n"}, "0::/a:b\n") == 2.0


def test_without_control_groups_there_is_no_quota(tree):
    assert tree({}) is None


def test_without_a_membership_file_the_root_still_binds(tree):
    assert tree({"cpu.max": "200000 100000\n"}) == 2.0


def grant(monkeypatch, affinity, quota):
    """Let the machine be one with so many cores and such a quota."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)))
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"),
    [(8, None, 8), (160, 2.0, 2), (160, 2.5, 3), (2, 16.0, 2), (8, 0.1, 1)],
)
def test_usable_cores_are_what_affinity_and_quota_leave(
    monkeypatch, affinity, quota, cores
):
    grant(monkeypatch, affinity, quota)
    assert usable_cores() == cores


@pytest.mark.parametrize(("count", "cores"), [(6, 6), (None, 1)])
def test_where_affinity_cannot_be_asked_all_cores_count(monkeypatch, count, cores):
    grant(monkeypatch, 1, None)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: count)
    assert usable_cores() == cores


def test_this_machine_grants_at_least_one_core():
    assert 1 <= usable_cores() <= os.cpu_count()


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 1), (8, 7)])
def test_a_pool_leaves_one_core_to_the_loop(monkeypatch, cores, workers):
    monkeypatch.delenv("OFFLOOP_MAX_WORKERS", raising=False)
    grant(monkeypatch, cores, None)
    assert default_max_workers() == workers


@pytest.mark.parametrize(
    ("text", "workers"), [("12", 12), ("0", 3), ("-2", 3), ("many", 3), ("", 3)]
)
def test_the_environment_overrides_if_it_names_a_number(monkeypatch, text, workers):
    monkeypatch.setenv("OFFLOOP_MAX_WORKERS", text)
    grant(monkeypatch, 4, None)
    assert default_max_workers() == workers


# Memory


def oom_kills(folder, files, membership=""):
    """Return what notices kills in a tree of control groups, and what rewrites it."""

    def write(files):
        for name, text in files.items():
            path = folder / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    write(files)
    (folder / "membership").write_text(membership)
    groups, system = folder / "groups", folder / "groups" / "vmstat"
    return OomKills(groups, folder / "membership", system), write


@pytest.mark.parametrize(
    ("name", "membership"),
    [
        ("memory.events", "0::/a/b\n"),
        ("a/b/memory.events", "0::/a/b\n"),
        ("memory/a/b/memory.oom_control", "4:memory:/a/b\n0::/\n"),
        ("memory/memory.oom_control", "4:memory:/a/b\n"),
        ("vmstat", ""),
    ],
)
def test_a_kill_for_lack_of_memory_is_told_once(tmp_path, name, membership):
    kills, write = oom_kills(tmp_path, {name: "oom 9\noom_kill 3\n"}, membership)
    assert not kills.one_more()
    write({name: "oom 9\noom_kill 5\n"})
    assert [kills.one_more() for _ in range(3)] == [True, True, False]


def test_the_own_group_knows_best(tmp_path):
    files = dict.fromkeys(["a/memory.events", "memory.events", "vmstat"], "oom_kill 1")
    kills, write = oom_kills(tmp_path, files, "0::/a\n")
    write({"memory.events": "oom_kill 2", "vmstat": "oom_kill 2"})
    assert not kills.one_more()
    write({"a/memory.events": "oom_kill 2"})
    assert kills.one_more()


def test_what_does_not_count_is_passed_over(tmp_path):
    files = {"memory.events": "oom_kill many", "vmstat": "pgfault 3"}
    kills, write = oom_kills(tmp_path, files)
    write({"memory.events": "oom_kill 7", "vmstat": "oom_kill 7"})
    assert not kills.one_more()


def test_a_counter_that_goes_away_tells_of_no_kill(tmp_path):
    kills, _ = oom_kills(tmp_path, {"vmstat": "oom_kill 1"})
    (tmp_path / "groups" / "vmstat").unlink()
    assert not kills.one_more()


def test_memory_is_counted_with_that_of_all_descendants(gate):
    reached, until = gate(), gate()
    program = (
        "import sys, jobs\n"
        "held = bytearray(b'x') * 60_000_000\n"
        f"jobs.meet({str(reached)!r}, {str(until)!r})"
    )
    path = os.pathsep.join(p for p in sys.path if p)
    child = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}
    )
    with open(str(reached)) as file:
        file.readline()
    alone = machine.memory_of_tree(child.pid)
    assert 60_000_000 < alone < 200_000_000
    assert machine.memory_of_tree(os.getpid()) > alone + 1_000_000
    until.open()
    child.wait()
    assert machine.memory_of_tree(child.pid) == 0


@pytest.mark.parametrize(
    ("files", "membership"),
    [
        ({"memory.max": "1000\n"}, "0::/\n"),
        ({"a/memory.max": "max\n", "a/b/memory.max": "1000\n"}, "0::/a/b\n"),
        ({"a/memory.max": "1000\n", "a/b/memory.max": "5000\n"}, "0::/a/b\n"),
        ({"memory/memory.limit_in_bytes": "1000\n"}, "4:memory:/\n"),
    ],
)
def test_memory_is_what_the_narrowest_group_allows(tmp_path, files, membership):
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    own = tmp_path / "membership"
    own.write_text(membership)
    assert machine.memory_allowance(tmp_path / "cgroup", own) == 1000


def test_without_a_group_memory_is_that_of_the_machine(tmp_path):
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory_allowance(tmp_path, tmp_path / "nothing") == whole
