"""The watch over leaks sees each kind of leak, and nothing else."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

import leaks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# A shell that waits for its standard input to close: no time is involved.
WAITER = ["sh", "-c", "read line"]


def test_a_test_that_keeps_nothing_is_clean(runtime):
    before = leaks.take(runtime)
    subprocess.run(["true"], check=True)
    with tempfile.TemporaryFile():
        pass
    assert leaks.find(before, runtime) == []


def test_a_running_child_is_found_and_killed(runtime):
    before = leaks.take(runtime)
    with subprocess.Popen(WAITER, stdin=subprocess.PIPE) as child:
        found = leaks.find(before, runtime, patience=0.01)
        assert not psutil.pid_exists(child.pid)
    assert f"process {child.pid}: sh -c read line" in found


def test_a_grandchild_whose_parent_is_gone_is_found(runtime):
    before = leaks.take(runtime)
    reader, writer = os.pipe()
    script = "exec 3<&0; cat <&3 >/dev/null & echo $!"
    pid = int(subprocess.check_output(["sh", "-c", script], stdin=reader))
    os.close(reader)
    found = leaks.find(before, runtime, patience=0.01)
    os.close(writer)
    assert [text.split(":")[0] for text in found if "fd" not in text] == [
        f"process {pid}"
    ]


def test_a_child_that_is_ending_is_waited_for(runtime):
    before = leaks.take(runtime)
    child = subprocess.Popen(WAITER, stdin=subprocess.PIPE)
    child.stdin.close()
    assert leaks.find(before, runtime) == []
    child.wait()


def test_an_open_descriptor_is_found(runtime):
    before = leaks.take(runtime)
    reader, writer = os.pipe()
    found = leaks.find(before, runtime)
    os.close(reader)
    os.close(writer)
    assert [text.split()[:2] for text in found] == [
        ["fd", str(reader)],
        ["fd", str(writer)],
    ]


def test_a_descriptor_held_by_a_cycle_of_garbage_is_not_a_leak(runtime):
    before = leaks.take(runtime)
    cycle = [_Pipe()]
    cycle.append(cycle)
    del cycle
    assert leaks.find(before, runtime) == []


class _Pipe:
    """Closes its descriptors when it is collected."""

    def __init__(self):
        self.ends = os.pipe()

    def __del__(self):
        for end in self.ends:
            os.close(end)


def test_a_running_thread_is_found(runtime):
    before = leaks.take(runtime)
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="left-behind")
    thread.start()
    found = leaks.find(before, runtime, patience=0.01)
    done.set()
    thread.join()
    assert found == ["thread left-behind"]


def test_a_file_in_the_runtime_directory_is_found(runtime):
    before = leaks.take(runtime)
    path = Path(tempfile.mkdtemp(prefix="offloop-"))
    found = leaks.find(before, runtime)
    path.rmdir()
    assert found == [f"file {path}"]


def test_a_shared_block_is_found(runtime):
    before = leaks.take(runtime)
    # Mapped as long as it has that name: other processes of pytest see whose it is.
    with tempfile.NamedTemporaryFile(dir="/dev/shm", delete=False) as file:
        file.truncate(mmap.PAGESIZE)
        with mmap.mmap(file.fileno(), 0):
            path = Path(file.name).rename(f"/dev/shm/offloop-test-{os.getpid()}")
            found = leaks.find(before, runtime)
            path.unlink()
    assert found[-1] == f"file {path}"


def test_the_fixture_fails_the_test_that_leaks(pytester, request):
    house = Path(__file__).parent
    pytester.makeconftest((house / "conftest.py").read_text())
    pytester.makepyfile(
        """
        import os

        def test_that_leaks():
            os.pipe()

        def test_that_is_clean():
            pass

        async def test_that_awaits():
            raise AssertionError("it ran")
        """
    )
    outcome = pytester.runpytest_subprocess(f"-opythonpath={house}")
    outcome.assert_outcomes(passed=2, errors=1, failed=1)
    outcome.stdout.fnmatch_lines(["*the test left behind: fd *", "*it ran*"])
