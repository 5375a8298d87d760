"""A file that no path leads to; lack of memory is an error of the call."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile

import pytest

from offloop.wire.sparse_file import SparseFile, create_file

MIB = 1024 * 1024


def new_file():
    return SparseFile(create_file(64 * MIB))


def memory(file):
    """Return the bytes of memory that the file has."""
    return os.fstat(file.descriptor).st_blocks * 512


def no_segment(*args, **kwargs):
    raise FileNotFoundError("/dev/shm")


@pytest.mark.parametrize(
    "where", ["memfd", "segment", "no segments", "no place", "segments are not files"]
)
def test_no_path_leads_to_the_file_and_no_program_inherits_it(monkeypatch, where):
    if where != "memfd":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    if where == "no segments":
        monkeypatch.setitem(sys.modules, "_posixshmem", None)
    elif where == "no place":
        monkeypatch.setattr("_posixshmem.shm_open", no_segment)
    elif where == "segments are not files":
        pread = os.pread
        monkeypatch.setattr(os, "pread", no_segment)
    segments = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else ()
    file = new_file()
    found = os.fstat(file.descriptor)
    assert found.st_nlink == 0
    assert found.st_size == 64 * MIB
    assert not os.get_inheritable(file.descriptor)
    assert memory(file) < MIB
    if where == "segment":
        assert segments == set(os.listdir("/dev/shm"))
        assert os.readlink(f"/proc/self/fd/{file.descriptor}").startswith("/dev/shm/")
    elif where == "segments are not files":
        monkeypatch.setattr(os, "pread", pread)
    file.write(memoryview(b"here"), 5 * MIB)
    assert os.pread(file.descriptor, 6, 5 * MIB - 1) == b"\0here\0"


def test_the_descriptor_is_closed_with_the_last_reference():
    file = SparseFile(create_file(MIB))
    descriptor, other = file.descriptor, file
    del file
    os.fstat(descriptor)
    del other
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("fallocate", [True, False])
def test_what_is_reserved_has_memory(monkeypatch, fallocate):
    file = new_file()
    if not fallocate:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    file.reserve(MIB, 2 * MIB)
    assert memory(file) == 2 * MIB


def test_lack_of_memory_is_an_error_of_the_call():
    file = new_file()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB + 3, hard))
    try:
        with pytest.raises(MemoryError, match=r"memory for \d+ more .* lower the"):
            file.write(memoryview(bytes(MIB)), 2 * MIB)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    # What found room before the limit was written.
    assert 0 < memory(file) < MIB


def test_another_trouble_is_not_called_a_lack_of_memory():
    file = new_file()
    reader = SparseFile(os.open(f"/dev/fd/{file.descriptor}", os.O_RDONLY))
    with pytest.raises(OSError, match="Bad file descriptor"):
        reader.write(memoryview(b"x"), 0)


FULL = """
import os, sys, tempfile
from offloop.wire.sparse_file import SparseFile
with tempfile.TemporaryFile(dir=sys.argv[1]) as unlinked:
    file = SparseFile(os.dup(unlinked.fileno()))
os.ftruncate(file.descriptor, 1 << 30)
for attempt in (lambda: file.write(memoryview(bytes(1 << 23)), 0),
                lambda: file.reserve(0, 1 << 23)):
    try:
        attempt()
    except MemoryError as error:
        print(error.__cause__.strerror)
"""


@pytest.mark.slow
def test_a_full_file_system_is_no_end_of_the_process():
    place = tempfile.mkdtemp()
    inside = [
        *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
        'mount -t tmpfs -o size=4m full "$1" && shift && exec "$@"',
        *("sh", place, sys.executable, "-c", FULL, place),
    ]
    try:
        ended = subprocess.run(inside, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no `unshare` to make a small file system with")
    finally:
        os.rmdir(place)
    if "mount" in ended.stderr or "unshare" in ended.stderr:
        pytest.skip(f"not allowed to make a small file system: {ended.stderr}")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.splitlines() == ["No space left on device"] * 2
