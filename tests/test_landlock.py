"""A process with Landlock looks into no other one; its files are as they were."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from offloop import landlock

ALONE = """
import ctypes, os, sys
from offloop import landlock
versions = {"real": landlock.version, "first": lambda: 1, "none": lambda: 0}
landlock.version = versions[sys.argv[1]]
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
landlock.keep_out_of_others()
os.chdir(sys.argv[2])
open("file", "w").close()
for act in (
    lambda: os.close(os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY)),
    lambda: os.rename("file", "folder/file"),
):
    try:
        act()
    except OSError as error:
        print(error.strerror)
    else:
        print("done")
"""

pytestmark = pytest.mark.skipif(not landlock.version(), reason="a kernel without it")


@pytest.mark.parametrize(
    ("version", "lines"),
    [
        ("real", ["Permission denied", "done"]),
        ("first", ["Permission denied", "Invalid cross-device link"]),
        ("none", ["done", "done"]),
    ],
)
def test_it_keeps_out_of_others_and_restricts_no_files(version, lines, tmp_path):
    if version == "real" and landlock.version() == 1:
        pytest.skip("it is the first version")
    (tmp_path / "folder").mkdir()
    command = [sys.executable, "-c", ALONE, version, str(tmp_path)]
    assert subprocess.check_output(command, text=True).splitlines() == lines


def test_what_the_kernel_refuses_is_an_error():
    with pytest.raises(OSError, match="Landlock cannot be had"):
        landlock._checked(landlock._libc().syscall(landlock._RESTRICT_SELF, -1, 0))


def test_elsewhere_there_is_none(monkeypatch):
    monkeypatch.setattr(os, "uname", lambda: type("Name", (), {"sysname": "Darwin"}))
    assert landlock.version() == 0
