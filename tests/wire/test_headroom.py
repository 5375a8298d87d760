"""How much memory the system grants: control groups of both versions, the machine."""

from __future__ import annotations

import pytest

from offloop.wire.headroom import Headroom

MIB = 1024 * 1024
MACHINE = "MemTotal: 9 kB\nMemAvailable: 1048576 kB\nSwapFree: 1024 kB\n"


@pytest.fixture
def headroom(tmp_path):
    """Make one of files as control groups have them."""

    def make(files, membership="", machine=MACHINE):
        for name, content in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(content))
        (tmp_path / "membership").write_text(membership)
        if machine is not None:
            (tmp_path / "meminfo").write_text(machine)
        names = ("groups", "membership", "meminfo")
        return Headroom(*(str(tmp_path / name) for name in names))

    return make


def v2(folder, limit, used, stat=""):
    names = "memory.max", "memory.current", "memory.stat"
    return {
        f"{folder}{name}": content
        for name, content in zip(names, (limit, used, stat), strict=True)
    }


def v1(folder, limit, used, stat=""):
    names = "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat"
    return {
        f"memory/{folder}{name}": content
        for name, content in zip(names, (limit, used, stat), strict=True)
    }


def test_without_control_groups_the_machine_limits(headroom):
    left = (1024 + 1 - 64) * MIB
    assert headroom({}).claim(left) == left
    with pytest.raises(MemoryError, match=rf"{left + 1} more bytes: the machine has"):
        headroom({}).claim(left + 1)


def test_where_nobody_tells_all_is_granted(headroom):
    assert headroom({}, machine=None).claim(1 << 50) >= 1 << 50


@pytest.mark.parametrize(
    ("files", "membership"),
    [
        (v2("app/", 160 * MIB, 50 * MIB), "0::/app\n"),
        (v1("app/", 160 * MIB, 50 * MIB), "4:cpu,memory:/app\n"),
        (v2("", 160 * MIB, 50 * MIB), "0::/a/path/of/the/host\n"),
        (
            v2("app/", 160 * MIB, 50 * MIB) | v2("app/inner/", "max", 50 * MIB),
            "0::/app/inner\n",
        ),
        (
            v1("", 9223372036854771712, 0) | v1("app/", 160 * MIB, 50 * MIB),
            "4:memory:/app\n",
        ),
    ],
)
def test_the_tightest_group_limits(headroom, files, membership):
    made = headroom(files, membership)
    assert made.claim(100 * MIB) == 100 * MIB  # a sixteenth stays free
    with pytest.raises(MemoryError, match=r"control group .* has 104857600 bytes"):
        made.claim(100 * MIB + 1)


def test_groups_of_others_do_not_limit(headroom):
    files = v2("mine/", "max", 5) | v2("other/", 10, 10)
    assert headroom(files, "0::/mine\n").claim(MIB) > MIB


@pytest.mark.parametrize(
    ("make", "membership", "prefix"),
    [(v2, "0::/app\n", ""), (v1, "4:memory:/app\n", "total_")],
)
def test_cached_files_are_as_good_as_free(headroom, make, membership, prefix):
    stat = f"anon 5\n{prefix}inactive_file {40 * MIB}\n{prefix}active_file {8 * MIB}\n"
    made = headroom(make("app/", 160 * MIB, 145 * MIB, stat), membership)
    assert made.claim(5 * MIB) == 5 * MIB
    assert made.claim(40 * MIB) == 53 * MIB


def test_a_group_over_its_limit_has_nothing_left(headroom):
    made = headroom(v2("app/", 16 * MIB, 17 * MIB), "0::/app\n")
    with pytest.raises(MemoryError, match="has 0 bytes left"):
        made.claim(1)


def test_a_group_that_goes_limits_nothing(headroom, tmp_path):
    made = headroom(v2("app/", 16 * MIB, 17 * MIB), "0::/app\n")
    folder = tmp_path / "groups" / "app"
    for file in folder.iterdir():
        file.unlink()
    assert made.claim(MIB) > MIB
    for name in ("memory.max", "memory.current"):
        (folder / name).mkdir()  # can be opened, and not be read
    assert made.claim(MIB) > MIB
