"""The command: options, the environment, and what is missing."""

from __future__ import annotations

import importlib.util
import socket
from concurrent.futures import ThreadPoolExecutor

import click
import pytest
from click.testing import CliRunner

import offloop.demo
from offloop.demo import command, server
from offloop.demo.server import Listen
from offloop.demo.settings import Settings


@pytest.fixture
def run(monkeypatch):
    """Return what runs the command; the server only notes what it would serve."""
    served = []

    def serve(*what):
        served.append(what)
        return what[1].port != 1  # port 1 cannot be had

    monkeypatch.setattr(server, "serve", serve)

    def run(*arguments, **env):
        result = CliRunner().invoke(command.demo, arguments, env=env)
        return result, served

    return run


def test_without_options_it_serves_this_machine_only(run):
    result, served = run()
    assert result.exit_code == 0
    local = Settings(controls=True, debug_headers=True)
    assert served == [(local, Listen("127.0.0.1", 8000))]


OPTIONS = {
    "--host": "::1",
    "--port": "0",
    "--workers": "3",
    "--queue": "4",
    "--timeout": "2.5",
    "--max-body": "5MiB",
    "--max-pixels": "1K",
    "--upload-timeout": "7",
    "--max-upload-bytes": "9M",
    "--memory-limit": "600M",
    "--isolation": "sandbox",
    "--codec": "vips",
    "--uds": "/run/demo.sock",
    "--metrics-bind": "[::1]:9000",
    "--key": "secret",
    "--allow-origin": "*",
}
SETTINGS = Settings(
    workers=3,
    queue=4,
    max_body=5 * 1024**2,
    max_pixels=1000,
    timeout=2.5,
    upload_timeout=7.0,
    max_upload_bytes=9_000_000,
    memory_limit=600_000_000,
    isolation="sandbox",
    codec="vips",
    keys=("secret",),
    allow_origin="*",
)
LISTEN = Listen("::1", 0, "/run/demo.sock", ("::1", 9000))


def test_every_option_counts(run):
    _, served = run(*(word for pair in OPTIONS.items() for word in pair))
    assert served == [(SETTINGS, LISTEN)]


def test_every_option_is_also_an_environment_variable(run):
    env = {
        "OFFLOOP_" + name[2:].replace("-", "_").upper(): value
        for name, value in OPTIONS.items()
    }
    _, served = run(**env)
    assert served == [(SETTINGS, LISTEN)]
    for option in command.demo.params:
        assert option.envvar in (f"OFFLOOP_{option.name.upper()}", None)
        assert (option.envvar is None) == (option.name == "health_check")
        assert option.help


def test_several_keys_can_be_given(run):
    _, served = run("--key", "new", "--key", "old")
    assert served[0][0].keys == ("new", "old")


@pytest.mark.parametrize(
    ("arguments", "controls", "headers"),
    [
        ("--host localhost", True, True),
        ("--host 127.0.0.1 --no-controls", False, False),
        ("--no-debug-headers", True, False),
        ("--host 0.0.0.0", False, False),
        ("--host example.org --debug-headers", False, True),
        ("--host 0.0.0.0 --controls", True, True),
    ],
)
def test_controls_are_for_this_machine_unless_it_is_told(
    run, arguments, controls, headers
):
    _, served = run(*arguments.split())
    settings = served[0][0]
    assert (settings.controls, settings.debug_headers) == (controls, headers)


def test_a_health_check_asks_the_server_that_runs(run, shared_server, tmp_path):
    port = shared_server[1].rpartition(":")[2]
    asked, served = run("--health-check", "--port", port)
    assert (asked.exit_code, served) == (0, [])
    assert run("--health-check", "--port", "1")[0].exit_code == 1
    nowhere = str(tmp_path / "none.sock")
    assert run("--health-check", "--uds", nowhere)[0].exit_code == 1


def test_a_health_check_of_something_else_fails():
    with socket.create_server(("127.0.0.1", 0)) as other, ThreadPoolExecutor(1) as pool:
        alive = pool.submit(command.is_alive, *other.getsockname())
        connection, _ = other.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 503 no\r\n")
        assert not alive.result()


@pytest.mark.parametrize(
    "wrong",
    [
        *("--workers 0", "--queue -1", "--port 70000", "--timeout 0"),
        *("--max-body much", "--max-body 0", "--max-pixels -5"),
        *("--metrics-bind 9000", "--metrics-bind x:70000", "--upload-timeout 0"),
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


def test_a_server_of_somebody_else_gets_its_settings_from_the_environment(monkeypatch):
    for name, value in OPTIONS.items():
        variable = "OFFLOOP_" + name[2:].replace("-", "_").upper()
        monkeypatch.setenv(variable, value)
    assert command.settings_from_environment() == SETTINGS
    monkeypatch.setenv("OFFLOOP_WORKERS", "none")
    with pytest.raises(click.UsageError, match="not a valid integer"):
        command.settings_from_environment()


def test_the_application_can_be_named():
    assert callable(offloop.demo.app)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = offloop.demo.nothing
