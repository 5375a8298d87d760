"""A worker's records: what travels of them, when, and what becomes of too many."""

from __future__ import annotations

import logging
import threading

import pytest

from offloop.wire import records
from offloop.wire.records import MOST, Records


class Ends:
    """What a worker does for its records."""

    def __init__(self):
        self.rows, self.dropped, self.waits, self.kept = [], 0, 0, b""
        self.job = 7, "work"
        self.records = Records(self.send, lambda: self.job, self.wait, self.keep)

    def send(self, rows, dropped):
        self.rows += rows
        self.dropped += dropped

    def wait(self):
        self.waits += 1

    def keep(self, data):
        self.kept += bytes(data)

    @property
    def texts(self):
        return [(row[2], row[-2]) for row in self.rows]


@pytest.fixture
def bare(monkeypatch):
    """Return what makes the root logger one of a fresh process: pytest's listens."""

    def bare():
        root = logging.getLogger()
        monkeypatch.setattr(root, "handlers", [])
        monkeypatch.setattr(root, "level", logging.WARNING)
        root.manager._clear_cache()
        return root

    yield bare
    monkeypatch.undo()
    logging.getLogger().manager._clear_cache()


def test_what_the_root_logger_gets_is_sent_and_kept(bare):
    bare()
    own = logging.getLogger("user.own")
    own.setLevel(logging.CRITICAL)  # the worker's code has its reasons
    ends = Ends()
    ends.records.listen({"": logging.INFO, "user.quiet": logging.ERROR, own.name: 10})
    own.error("not this")
    logging.getLogger("user.loud").info("hello %d", 1, extra={"who": None})
    logging.getLogger("user.quiet").warning("not this")
    logging.getLogger("user.loud").warning("where", stack_info=True)
    try:
        raise LookupError("here")
    except LookupError:
        logging.getLogger("user.quiet").exception("caught", stack_info=True)
    ends.records.flush()  # there is nothing left
    for name in ("user.quiet", "user.own"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    first, second, third = ends.rows
    assert first[:3] == ("user.loud", logging.INFO, "hello 1")
    assert first[-3:] == ({"who": None}, 7, "work")
    assert "Stack (most recent call last)" in second[8]
    assert third[8].startswith("Traceback (most")
    assert "LookupError: here\nStack (most" in third[8]
    assert ends.kept.startswith(b"hello 1\nwhere\nStack")


def test_a_record_that_cannot_be_told_harms_nobody(bare, capsys):
    bare()
    ends = Ends()
    ends.records.listen({})
    logging.getLogger("user").error("%d", "no number")
    assert ends.rows == []
    assert "Logging error" in capsys.readouterr().err


def test_a_root_logger_that_has_handlers_is_left_alone(bare):
    root = bare()
    root.addHandler(logging.NullHandler())
    ends = Ends()
    ends.records.listen({"": logging.DEBUG})
    logging.getLogger("user").error("not this")
    assert ends.rows == []
    assert root.level == logging.WARNING


def test_nobody_imports_logging_for_its_sake(bare, monkeypatch):
    root = bare()
    watched = []
    monkeypatch.setattr(
        records.on_import, "watch", lambda *what, always: watched.append(what)
    )
    monkeypatch.delitem(records.sys.modules, "logging")
    ends = Ends()
    ends.records.listen({"": logging.INFO})
    name, _ = watched[0]
    assert (name, root.handlers) == ("logging", [])


def test_other_threads_leave_the_sending_to_the_main_one(bare):
    bare()
    ends = Ends()
    ends.records.listen({})
    thread = threading.Thread(target=logging.getLogger("user").error, args=("aside",))
    thread.start()
    thread.join()
    assert (ends.rows, ends.waits) == ([], 1)
    ends.records.flush()
    assert ends.texts == [("aside", 7)]


def test_too_many_in_a_second_are_counted(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(records.time, "monotonic", lambda: now[0])
    ends = Ends()
    for _ in range(MOST + 5):
        ends.records.take(("n", 20, "text", 0.0, "", 0, "", "main", "", {}))
    assert (len(ends.rows), ends.dropped, ends.waits) == (MOST, 0, 5)
    now[0] += 1.0
    ends.records.take(("n", 20, "text", 0.0, "", 0, "", "main", "", {}))
    assert (len(ends.rows), ends.dropped) == (MOST + 1, 5)


def test_lines_go_whole_and_belong_to_the_job_that_began_them():
    ends = Ends()
    ends.records.take_printed("stdout", memoryview(b"one\ntwo\nthr"))
    ends.job = 8, "other"
    ends.records.take_printed("stderr", memoryview(b"oh"))
    ends.records.take_printed("stdout", memoryview(b"ee\nfour\n"))
    assert ends.texts == [("one", 7), ("two", 7), ("three", 7), ("four", 8)]
    assert {row[:2] for row in ends.rows} == {("offloop.stdout", logging.INFO)}
    assert ends.waits == 2
    ends.job = 0, ""
    ends.records.end_lines()
    ends.records.end_lines()
    assert ends.texts[4:] == [("oh", 8)]
    assert ends.rows[-1][1] == logging.WARNING
    ends.records.take_printed("stdout", memoryview(b"x" * 40_000))
    assert len(ends.rows[-1][2]) == 32 * 1024
