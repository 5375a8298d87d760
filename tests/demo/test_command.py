"""The command: options, the environment, and what is missing."""

from __future__ import annotations

import importlib.util

import click
import pytest
from click.testing import CliRunner

from offloop.demo import command, server
from offloop.demo.settings import Settings


@pytest.fixture
def run(monkeypatch):
    """Return what runs the command; the server only notes what it would serve."""
    served = []

    def serve(*what):
        served.append(what)
        return what[2] != 1  # port 1 cannot be had

    monkeypatch.setattr(server, "serve", serve)

    def run(*arguments, **env):
        result = CliRunner().invoke(command.demo, arguments, env=env)
        return result, served

    return run


def test_without_options_it_serves_this_machine_only(run):
    result, served = run()
    assert result.exit_code == 0
    assert served == [(Settings(), "127.0.0.1", 8000)]


def test_every_option_counts(run):
    options = "--host ::1 --port 0 --workers 3 --queue 4 --timeout 2.5 "
    sizes = "--max-body 5MiB --max-pixels 1000"
    _, served = run(*(options + sizes).split())
    assert served == [(Settings(3, 4, 5 * 1024**2, 1000, 2.5), "::1", 0)]


def test_every_option_is_also_an_environment_variable(run):
    _, served = run(
        OFFLOOP_HOST="::1",
        OFFLOOP_PORT="0",
        OFFLOOP_WORKERS="3",
        OFFLOOP_QUEUE="4",
        OFFLOOP_TIMEOUT="2.5",
        OFFLOOP_MAX_BODY="5MiB",
        OFFLOOP_MAX_PIXELS="1K",
    )
    assert served == [(Settings(3, 4, 5 * 1024**2, 1000, 2.5), "::1", 0)]
    for option in command.demo.params:
        assert option.envvar == f"OFFLOOP_{option.name.upper()}"
        assert option.help


@pytest.mark.parametrize(
    "wrong",
    [
        *("--workers 0", "--queue -1", "--port 70000", "--timeout 0"),
        *("--max-body much", "--max-body 0", "--max-pixels -5"),
    ],
)
def test_a_wrong_value_is_refused_by_name(run, wrong):
    result, served = run(*wrong.split())
    assert result.exit_code == 2
    assert wrong.split()[0] in result.output
    assert served == []


def test_help_has_examples(run):
    result, _ = run("--help")
    assert "  offloop demo --host 0.0.0.0" in result.output
    assert "OFFLOOP_MAX_BODY" in result.output


def test_a_server_that_did_not_start_is_a_failure(run):
    assert run("--port", "1")[0].exit_code == 1


def test_what_is_missing_is_named_with_the_way_to_get_it(run, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        command, "find_spec", lambda name: None if name == "PIL" else find(name)
    )
    result, served = run()
    assert result.exit_code == click.ClickException.exit_code
    assert 'PIL is missing: pip install "offloop[demo]"' in result.output
    assert served == []
