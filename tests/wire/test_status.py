"""What a worker notes on its page its parent reads there, even after a death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offloop.wire import codec
from offloop.wire.status import SLOTS, StatusPage, create_file

#: up to so many bytes of an answer find room on the page
LARGEST = codec.LONG_PLAIN + 256


class Ends:
    """Both ends of one page, each with a mapping of its own."""

    def __init__(self):
        self.file = create_file()
        self.worker = StatusPage(self.file)
        self.parent = StatusPage(self.file)

    def close(self):
        self.worker.close()
        self.parent.close()
        os.close(self.file)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


@pytest.fixture
def ends():
    with Ends() as both:
        yield both


def answer(job, size=8):
    """Return what a worker keeps for a job: its first byte tells it from others."""
    return (bytes([job % 251]) * size)[:size]


def test_what_a_worker_may_use_and_what_it_has_used(ends):
    assert ends.worker.allowance() == (0, 0)
    ends.parent.allow(7, 1 << 40)
    assert ends.worker.allowance() == (7, 1 << 40)
    assert ends.parent.used() == (0, 0)
    ends.worker.note_used(3, 1 << 39)
    assert ends.parent.used() == (3, 1 << 39)
    assert ends.parent.running() == ends.parent.heard() == 0


def test_what_a_worker_is_to_begin_with_and_holds_back(ends):
    assert not ends.worker.sandboxed()
    ends.parent.put_in_sandbox()
    assert ends.worker.sandboxed()
    assert not ends.parent.holds_parts()
    ends.worker.hold_parts(True)
    assert ends.parent.holds_parts()
    ends.worker.hold_parts(False)
    assert not ends.parent.holds_parts()
    ends.worker.hold_report(True)
    assert ends.parent.holds_report()
    ends.worker.hold_report(False)
    assert not ends.parent.holds_report()


def test_words_that_are_forgotten_make_room_for_the_next(ends):
    StatusPage.prepare_last_words(ends.file)
    os.write(ends.file, b"the first time")
    assert StatusPage.last_words(ends.file) == "the first time"
    StatusPage.forget_words(ends.file)
    assert StatusPage.last_words(ends.file) == ""
    os.write(ends.file, b"again")
    assert StatusPage.last_words(ends.file) == "again"


def test_a_new_page_says_nothing(ends):
    assert ends.parent.running() == 0
    assert ends.parent.since() == 0.0
    assert list(ends.parent.kept()) == []
    assert ends.worker.interrupted() == 0
    assert not ends.worker.attention()
    assert StatusPage.last_words(ends.file) == ""


def test_the_parent_sees_which_job_runs_and_since_when(ends):
    ends.worker.begin(2**40, 3_500_000_000)
    assert (ends.parent.running(), ends.parent.since()) == (2**40, 3.5)
    ends.worker.begin(2**40 + 1, 4_000_000_000)
    assert (ends.parent.running(), ends.parent.since()) == (2**40 + 1, 4.0)
    ends.worker.rest()
    assert ends.parent.running() == 0


def test_the_worker_sees_what_the_parent_wants(ends):
    ends.parent.ask_attention(True)
    assert ends.worker.attention()
    ends.parent.ask_attention(False)
    assert not ends.worker.attention()
    ends.parent.interrupt(2**40)
    assert ends.worker.interrupted() == 2**40


# Around each border between small, large and too large, whatever the header takes.
SIZES = (
    st.integers(0, 300)
    | st.sampled_from([LARGEST - 1, LARGEST, LARGEST + 1])
    | st.integers(0, LARGEST + 100)
)


@given(
    st.lists(SIZES, max_size=12),
    st.sampled_from([0, 1, SLOTS - 5, SLOTS, 3 * SLOTS - 4]),
)
def test_the_last_answers_are_kept_whatever_their_sizes(sizes, before):
    with Ends() as ends:
        kept = deque(maxlen=SLOTS)
        for job, size in enumerate([8] * before + sizes, start=1):
            fits = ends.worker.keep(answer(job, size))
            assert fits == (size <= LARGEST)
            if fits:
                kept.append(answer(job, size))
            assert len(list(ends.parent.kept())) == len(kept)
        assert list(ends.parent.kept()) == list(kept)


@pytest.mark.parametrize("before", [0, SLOTS - 1, SLOTS, 2 * SLOTS])
@pytest.mark.parametrize("size", [8, LARGEST])
def test_an_answer_that_was_half_written_at_the_death_is_not_seen(ends, before, size):
    for job in range(1, before + 1):
        ends.worker.keep(answer(job))
    kept = list(ends.parent.kept())
    with pytest.raises(TypeError):  # copying a str fails, just where the death comes
        ends.worker.keep("x" * size)
    assert list(ends.parent.kept()) == kept


def test_answers_survive_the_worker_that_wrote_them(ends):
    script = (
        "import os, signal, sys; from offloop.wire.status import StatusPage\n"
        "page = StatusPage(int(sys.argv[1]))\n"
        "page.begin(1, 5); page.keep(b'done'); page.begin(2, 6)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", script, str(ends.file)]
    ended = subprocess.run(command, pass_fds=[ends.file])
    assert ended.returncode == -signal.SIGKILL
    assert ends.parent.running() == 2
    assert list(ends.parent.kept()) == [b"done"]


def test_last_words_land_behind_the_page_and_harm_nothing(ends):
    for job in range(1, SLOTS + 1):
        ends.worker.keep(answer(job, LARGEST))
    StatusPage.prepare_last_words(ends.file)
    os.write(ends.file, b"Fatal Python error: ")
    os.write(ends.file, "Übel \N{PILE OF POO}".encode()[:-1])
    words = StatusPage.last_words(ends.file)
    assert words == "Fatal Python error: Übel \N{REPLACEMENT CHARACTER}"
    wanted = [answer(job, LARGEST) for job in range(1, SLOTS + 1)]
    assert list(ends.parent.kept()) == wanted


def test_last_words_can_be_said_by_the_worker_itself(ends):
    ends.worker.say_last("a" * 20_000 + "é\udcff: no database today")
    words = StatusPage.last_words(ends.file)
    assert len(words.encode()) == 16384
    assert words.endswith("aé\\udcff: no database today")


def write(ends, *texts):
    for text in texts:
        ends.worker.note_printed(memoryview(text.encode()))


def test_what_was_printed_is_kept(ends):
    assert ends.parent.printed() == ""
    write(ends, "one\n", "", "two\nthr", "ee")
    assert ends.parent.printed() == "one\ntwo\nthree"


@given(st.lists(st.integers(0, 3000), max_size=12))
def test_the_last_lines_that_were_printed_are_whole(sizes):
    with Ends() as ends:
        lines = [f"{number}:" + "x" * size for number, size in enumerate(sizes)]
        write(ends, *(line + "\n" for line in lines))
        seen = ends.parent.printed().splitlines()
        assert seen == lines[len(lines) - len(seen) :]
        length = sum(len(line) + 1 for line in lines[-len(seen) :])
        assert not lines or len(lines[-1]) + 1 > 4096 or seen
        missing = lines[: len(lines) - len(seen)][-1:]
        assert all(length + len(line) + 1 >= 4096 for line in missing)


def test_a_line_that_is_longer_than_what_is_kept_is_seen_in_part(ends):
    write(ends, "a" * 5000 + "é" * 2000)
    assert ends.parent.printed() == "a" * 96 + "é" * 2000


@pytest.mark.parametrize("memfd", [True, False])
def test_no_path_leads_to_the_file_and_no_program_inherits_it(monkeypatch, memfd):
    if not memfd:
        monkeypatch.delattr(os, "memfd_create", raising=False)
    with Ends() as ends:
        assert os.fstat(ends.file).st_nlink == 0
        assert not os.get_inheritable(ends.file)
        assert os.fstat(ends.file).st_blocks * 512 < 64 * 1024  # sparse
        ends.worker.begin(7, 0)
        assert ends.parent.running() == 7


def test_a_page_that_was_closed_does_not_work_any_more(ends):
    page = StatusPage(ends.file)
    page.close()
    with pytest.raises(ValueError, match="released"):
        page.running()
