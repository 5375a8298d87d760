"""A worker knows when it has used up what it may use."""

from __future__ import annotations

import mmap
import os
import resource

import pytest

from offloop import meter
from offloop.errors import MemoryLimitExceeded
from offloop.meter import JOBS, MEMORY, MemoryLimit, Meter, own_memory
from offloop.wire.status import StatusPage, create_file

PLENTY = 1 << 40


@pytest.fixture
def make(monkeypatch):
    """Return what makes a meter with limits, and its page."""
    monkeypatch.setattr(meter, "_PAUSE_NS", 0)
    made = []

    def one(jobs=0, memory=0, give_back=lambda: None):
        file = create_file()
        page = StatusPage(file)
        page.allow(jobs, memory)
        made.append((page, file, Meter(page, give_back)))
        return made[-1][2], page

    yield one
    for page, file, one in made:
        page.close()
        os.close(file)
        if one._file is not None:
            os.close(one._file)


def test_it_is_needed_if_something_is_limited(make):
    assert not make()[0].needed
    assert make(jobs=1)[0].needed
    assert make(memory=1)[0].needed


def test_jobs_are_counted(make):
    counter, page = make(jobs=3)
    assert [counter.job_ended() for _ in range(4)] == [0, 0, JOBS, JOBS]
    assert page.used() == (4, 0)


def test_memory_below_the_limit_is_told_to_the_page(make):
    counter, page = make(memory=PLENTY)
    assert counter.job_ended() == 0
    jobs, memory = page.used()
    assert jobs == 1
    assert memory > 1_000_000
    # Not from the heap, which may have as much to spare.
    held = mmap.mmap(-1, 50_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held.write(b"x" * 50_000_000)
    assert counter.job_ended() == 0
    assert page.used()[1] - memory > 40_000_000
    del held


def test_memory_above_the_limit_is_used_up(make):
    counter, page = make(jobs=100, memory=1_000_000)
    assert counter.job_ended() == MEMORY
    assert page.used()[1] > 1_000_000


def test_what_can_be_given_back_does_not_count(make):
    held = [bytearray(b"x") * 100_000_000]
    counter, page = make(memory=own_memory() - 50_000_000, give_back=held.clear)
    assert counter.job_ended() == 0
    assert held == []
    assert page.used()[1] > 1_000_000


def test_what_is_shared_does_not_count(make):
    counter, _ = make(memory=own_memory() + 50_000_000)
    with mmap.mmap(-1, 100_000_000) as shared:
        shared.write(b"x" * len(shared))
        assert counter._resident() > own_memory() + 50_000_000
        assert counter.job_ended() == 0


def test_what_is_shared_is_told_apart_now_and_then(make, monkeypatch):
    thorough = []

    def own():
        thorough.append(1)
        return own_memory()

    monkeypatch.setattr(meter, "own_memory", own)
    counter, _ = make(memory=own_memory() + 50_000_000)
    with mmap.mmap(-1, 100_000_000) as shared:
        shared.write(b"x" * len(shared))
        for _ in range(meter._THOROUGH):
            assert counter.job_ended() == 0
        assert len(thorough) == 1
        assert counter.job_ended() == 0
        assert len(thorough) == 2
        held = bytearray(b"x") * 80_000_000
        assert counter.job_ended() == MEMORY
        del held


def test_it_does_not_look_again_and_again(make, monkeypatch):
    counter, page = make(memory=PLENTY)
    monkeypatch.setattr(meter, "_PAUSE_NS", 1 << 62)
    counter.job_ended()
    counter.job_ended()
    assert page.used() == (2, 0)


def test_a_job_that_closes_all_files_does_no_harm(make):
    counter, _ = make(memory=PLENTY)
    counter.job_ended()
    os.close(counter._file)
    assert counter._resident() == pytest.approx(own_memory(), rel=0.5)
    assert counter._file is None
    assert counter.job_ended() == 0
    assert counter._file is not None


def test_a_job_that_opens_another_file_there_does_no_harm(make, tmp_path):
    counter, _ = make(memory=PLENTY)
    counter.job_ended()
    (tmp_path / "other").write_text("nothing of that kind")
    with open(tmp_path / "other") as other:
        os.dup2(other.fileno(), counter._file)
        theirs = counter._file
        assert counter._resident() == pytest.approx(own_memory(), rel=0.5)
    os.close(theirs)


def test_without_proc_the_peak_is_taken(make, monkeypatch):
    def refuse(*args, **kwargs):
        raise FileNotFoundError

    counter, _ = make(memory=PLENTY)
    monkeypatch.setattr(meter.os, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    peak = counter._resident()
    monkeypatch.undo()
    assert peak > 0


@pytest.fixture
def limit():
    """Return what makes a limit; nothing is limited in the end."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    yield lambda more: MemoryLimit(private_bytes() + more)
    resource.setrlimit(resource.RLIMIT_DATA, before)


def private_bytes():
    """Return what the kernel counts of this process against RLIMIT_DATA."""
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["VmData"].split()[0]) * 1024


def test_a_limit_fails_allocations_while_it_is_imposed(limit):
    one = limit(100_000_000)
    one.impose()
    with pytest.raises(MemoryError) as caught:
        bytearray(200_000_000)
    one.lift()
    assert len(bytearray(200_000_000)) == 200_000_000
    assert not one.was_exceeded
    named = one.named(caught.value, 3, "blur")
    assert one.was_exceeded
    assert isinstance(named, MemoryLimitExceeded)
    assert (named.job_id, named.function, named.__cause__) == (3, "blur", caught.value)
    assert "job 3 (blur) asked for more memory than memory_limit=" in str(named)
    assert "leaves it: MemoryError;" in str(named)


def test_what_the_error_says_is_told(limit):
    named = limit(0).named(MemoryError("cannot allocate 7 TiB"), 3, "blur")
    assert "leaves it: cannot allocate 7 TiB;" in str(named)


def test_other_errors_stay_what_they_are(limit):
    one, error = limit(0), ValueError("bad")
    assert one.named(error, 3, "blur") is error
    assert not one.was_exceeded


def test_a_limit_above_what_the_process_may_set_is_lowered(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (500, 500))
    assert MemoryLimit(1000)._limit == 500
    assert MemoryLimit(400)._limit == 400
