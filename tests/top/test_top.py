"""``offloop top`` as people use it: on a terminal with keys, piped, and as JSON."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import struct
import sys
import termios

import pytest
from click.testing import CliRunner

import jobs
import operators
from offloop import Pool, operated
from offloop.errors import PoolClosed
from offloop.telemetry import events
from offloop.top import command, targets
from offloop.top.terminal import keys_in

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _soon(monkeypatch, own_runtime):
    """Let pools listen at once, where no other pool is."""
    monkeypatch.setattr(operated, "_DELAY", 0.0)
    monkeypatch.setattr(command, "_ONCE", 0.01)
    monkeypatch.setattr(
        targets, "_bases", lambda: [own_runtime]
    )  # nor in the usual places


async def run(*arguments):
    """Return the exit code of the command, and what it printed."""
    invoke = CliRunner().invoke
    done = await asyncio.to_thread(invoke, command.top, arguments)
    return done.exit_code, done.output


class Screen:
    """A terminal of 80 by 24 in which a command runs."""

    def __init__(self, process, master):
        self.process = process
        self._master = master
        self._text = ""
        self._changed = asyncio.Event()
        os.set_blocking(master, False)
        asyncio.get_running_loop().add_reader(master, self._read)

    @classmethod
    async def start(cls, *arguments):
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "offloop", "top", "--interval", "0.1", *arguments),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm-256color"},
        )
        os.close(slave)
        return cls(process, master)

    def _read(self):
        try:
            data = os.read(self._master, 65536)
        except OSError:  # the other end is closed
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self._text += re.sub(
            r"\x1b\[[?0-9;]*[a-zA-Z]", "", data.decode(errors="replace")
        )
        self._changed.set()

    async def until(self, pattern):
        """Wait until the screen shows something that it did not before a key."""
        async with asyncio.timeout(60):
            while not re.search(pattern, self._text):
                self._changed.clear()
                await self._changed.wait()

    def press(self, keys):
        self._text = ""
        os.write(self._master, keys)

    async def close(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._master)


async def test_keys_do_what_they_say(gate):
    reached, leave = gate(), gate()
    pool = Pool(2, name="keys")
    happened = {}
    changed = asyncio.Event()

    def note(event):
        happened[type(event)] = event
        changed.set()

    pool.on(events.Event, note)

    async def until(kind):
        async with asyncio.timeout(60):
            while kind not in happened:
                changed.clear()
                await changed.wait()
        return happened.pop(kind)

    async with pool:
        await pool.ready()
        job = pool.submit(jobs.meet, str(reached), str(leave))
        await reached.reached()
        (busy,) = [one for one in pool.workers() if one.job is not None]
        (await operators.line_to(pool)).close()
        screen = await Screen.start("keys")
        try:
            await screen.until(r"WORKERS 2 of 2, 1 busy")
            await screen.until(rf"jobs\.meet #{job.id} ")
            for _ in range(busy.slot + 1):
                screen.press(b"\x1b[B")
                await screen.until("▸")
            screen.press(b"d")
            await screen.until(rf"worker {busy.worker} \(pid {busy.pid}\) has been")
            screen.press(b"x")
            await screen.until("WORKERS")
            leave.open()
            await job

            screen.press(b"s")
            await screen.until("FUNCTIONS 1, by time")
            screen.press(b"k")
            await screen.until(r"kill worker \d+ \(pid \d+\)\? Its job is lost: y or n")
            screen.press(b"n")
            await screen.until("quit")
            assert events.WorkerEnded not in happened
            screen.press(b"ky")
            ended = await until(events.WorkerEnded)
            assert (ended.worker, ended.signal) == (busy.worker, "SIGKILL")
            await pool.ready()

            screen.press(b"+")
            assert (await until(events.PoolResized)).after == 3
            await screen.until("WORKERS 3 of 3")
            screen.press(b"-")
            assert (await until(events.PoolResized)).after == 2
            screen.press(b"r")
            await until(events.ReloadDone)
            await screen.until(r"reloaded within \d")
            screen.press(b"D")
            await screen.until("drain")
            screen.press(b"y")
            await until(events.PoolDraining)
            await screen.until("drained")
            with pytest.raises(PoolClosed):
                pool.submit(jobs.nothing)
            screen.press(b"q")
            assert await screen.process.wait() == 0
        finally:
            await screen.close()


async def test_it_says_when_the_program_has_ended():
    pool = Pool(1, name="brief")
    async with pool:
        (await operators.line_to(pool)).close()
        screen = await Screen.start("brief")
        await screen.until("WORKERS 1 of 1")
    try:
        await screen.until("has ended")
        assert await screen.process.wait() == 0
    finally:
        await screen.close()


async def test_figures_are_those_of_the_pool():
    async with Pool(2, name="figures") as pool, Pool(1, name="other") as other:
        await pool.ready()
        for one in (pool, other):
            (await operators.line_to(one)).close()
        await asyncio.gather(*(pool.run(jobs.add, n, 1) for n in range(20)))
        for _ in range(3):
            with pytest.raises(ValueError, match="bad"):
                await pool.run(jobs.raise_value_error)
        code, text = await run("figures", "--once", "--json")
        assert code == 0, text
        told = json.loads(text)["pool"]
        stats = pool.stats()
        assert told["stats"] == json.loads(json.dumps(stats.totals()))
        rows = {one["function"]: one for one in told["functions"]}
        assert rows.keys() == stats.functions.keys()
        for name, one in stats.functions.items():
            row = rows[name]
            assert row["completed"] == one.completed
            assert row["errors"] == one.failed + one.timed_out + one.lost
            for word in ("p50", "p95", "p99", "largest"):
                assert row[word] == getattr(one.run, word)
        workers = {one["pid"]: one for one in told["workers"]}
        assert workers.keys() == {one.pid for one in pool.workers()}
        assert all(one["rss"] > 1e6 for one in workers.values())
        assert all(0 <= one["cpu"] < 9 for one in workers.values())

        code, text = await run("figures", "--once")
        assert code == 0
        for word in ("WORKERS 2 of 2, 0 busy", "jobs.raise_value_error", "3 failed"):
            assert word in text
        assert "\x1b" not in text, "no colours where no terminal is"
        code, text = await run(str(os.getpid()), "--once")
        assert code == 0
        code, text = await run("nobody", "--once")
        assert code == 3
        assert "nothing is called 'nobody'; there are:\n" in text
        assert "pool 'figures', pid" in text


async def test_where_nothing_runs_it_says_so():
    code, text = await run()
    assert code == 3
    assert "nothing runs here that can be watched" in text


def test_keys_are_read_as_terminals_send_them():
    assert keys_in(b"q\x1b[A\x1bOB\x1b[5~\x1b\t\rx\xc3") == [
        *("q", "up", "down", "page up", "escape", "tab", "enter", "x", "\xc3")
    ]
