"""The command line as people run it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

import offloop
from offloop import cli


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["offloop", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_the_version_is_told(monkeypatch, capsys):
    assert run(monkeypatch, "--version") == 0
    assert offloop.__version__ in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_lists_the_commands(monkeypatch, capsys, word):
    assert run(monkeypatch, word) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in cli._COMMANDS)


def test_an_unknown_command_is_refused(monkeypatch, capsys):
    assert run(monkeypatch, "dance") == 2
    assert "dance" in capsys.readouterr().err


def test_without_click_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "click", None)
    assert 'pip install "offloop[demo]"' in run(monkeypatch, "demo")


def test_without_click_the_version_is_told_all_the_same(monkeypatch, capsys):
    run(monkeypatch, "--version")
    usual = capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "click", None)
    cli.main()
    assert capsys.readouterr().out == usual


def test_another_missing_module_is_not_hidden(monkeypatch):
    monkeypatch.setattr(cli, "_COMMANDS", {"demo": "offloop.not_there"})
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        cli.main()


def test_it_is_a_module_and_a_program():
    command = [sys.executable, "-m", "offloop", "--version"]
    assert b"offloop" in subprocess.check_output(command)
    importlib.import_module("offloop.__main__")  # does nothing
    programs = entry_points(group="console_scripts", name="offloop")
    assert {program.load() for program in programs} == {cli.main}


def test_help_does_not_load_what_commands_need():
    code = (
        "import sys\n"
        "from offloop.cli import main\n"
        "sys.argv[1:] = ['--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'starlette', 'uvicorn', 'PIL', 'numpy', 'zmq'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
