"""What children write, line by line."""

from __future__ import annotations

import json
import os

import pytest

import waiting
from offloop.cluster import logs
from offloop.cluster.logs import Lines, LogFile, Output, Printer
from offloop.errors import StartError


def printed(reader):
    return os.read(reader, 1 << 20).decode()


def test_lines_carry_the_name_of_who_has_written_them():
    reader, writer = os.pipe()
    printer = Printer(Output(writer))
    printer.print("server", 2, 7, "hello")
    printer.print("primary", None, 1, "und tsch\xfcss")
    printer.close()
    assert printed(reader) == "[server 2 pid 7] hello\n[primary pid 1] und tsch\xfcss\n"
    printer = Printer(Output(writer), as_json=True)
    printer.print("server", 2, 7, "a \udcff byte")
    printer.close()
    said = json.loads(printed(reader))
    assert said.pop("time") > 1e9
    assert said == {"role": "server", "slot": 2, "pid": 7, "line": "a \udcff byte"}
    os.close(reader)
    os.close(writer)


def test_nobody_waits_for_a_reader_and_what_is_too_much_is_counted(monkeypatch):
    monkeypatch.setattr(logs, "_ROOM", 200_000)
    reader, writer = os.pipe()
    printer = Printer(Output(writer))
    for _ in range(50):  # far more than a pipe holds
        printer.print("server", 0, 7, "x" * 10_000)
    closing = b""
    while b"lines dropped" not in closing:
        closing += os.read(reader, 1 << 20)
    assert closing.count(b"[server 0 pid 7]") < 50
    os.close(reader)
    printer.print("server", 0, 7, "nobody reads any more")
    printer.close()
    os.close(writer)


async def test_lines_are_whole_and_a_crash_may_cut_the_last_one():
    reader, writer = os.pipe()
    heard = []
    lines = Lines(reader, heard.append)
    os.write(writer, b"one\r\ntwo\nthr")
    os.close(writer)
    lines.close()
    assert heard == ["one", "two", "thr"]
    assert lines.last == "one\ntwo\nthr"


async def test_a_line_without_an_end_is_cut(monkeypatch):
    monkeypatch.setattr(logs, "_LONGEST", 10)
    reader, writer = os.pipe()
    heard = []
    lines = Lines(reader, heard.append)
    os.write(writer, b"0123456789abc")
    lines.close()
    assert heard == ["0123456789abc"]
    os.close(writer)


def test_a_file_that_is_large_makes_room_for_a_fresh_one(tmp_path):
    path = tmp_path / "log"
    one = LogFile(str(path), size=25, keep=3)
    for number in range(9):
        one.write(f"line {number} ...\n".encode())  # two fit into a file
    one.close()
    files = {file.name: file.read_text().count("line") for file in tmp_path.iterdir()}
    assert files == {"log": 1, "log.1": 2, "log.2": 2}
    with pytest.raises(StartError, match="no log can be written"):
        LogFile(str(tmp_path / "no" / "log"))


def test_a_file_that_was_moved_away_is_opened_anew(tmp_path):
    path = tmp_path / "log"
    output = LogFile(str(path))
    printer = Printer(output)
    printer.print("primary", None, 1, "one")
    waiting.poll(path.read_text)  # the thread writes it
    path.rename(tmp_path / "moved")
    printer.reopen()
    printer.print("primary", None, 1, "two")
    printer.close()
    output.close()
    assert path.read_text() == "[primary pid 1] two\n"
    assert (tmp_path / "moved").read_text() == "[primary pid 1] one\n"
