"""A pool can be seen and changed from outside, by its user alone, while it runs."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap

import pytest

import jobs
from offloop import Executor, Pool, operated, runtime
from offloop.errors import PoolClosed, WorkerLost
from offloop.telemetry import events
from operators import ask, line_to, socket_of
from waiting import until


@pytest.fixture(autouse=True)
def _soon(monkeypatch):
    """Let pools listen at once: these tests need no moment of peace."""
    monkeypatch.setattr(operated, "_DELAY", 0.0)


@pytest.mark.loops
async def test_it_tells_what_the_pool_tells_and_does_what_is_asked(gate):
    leave, reached = gate(), gate()
    pool = Pool(2, name="watched")
    async with pool:
        await pool.ready()
        await pool.run(jobs.add, 1, 1)
        with pytest.raises(ValueError, match="bad"):
            await pool.run(jobs.raise_value_error)
        job = pool.submit(jobs.meet, str(reached), str(leave))
        await reached.reached()

        with await line_to(pool) as line:  # one line carries many requests

            async def say(command, **details):
                return await asyncio.to_thread(line.ask, command, **details)

            assert line.pid == os.getpid()
            seen = await say("look")
            assert seen["ok"]
            assert seen["stats"] == json.loads(json.dumps(pool.stats().as_dict()))
            told = [one.as_dict() for one in pool.workers()]
            unlike = ("seconds", "running")  # they go on
            for theirs, ours in zip(seen["workers"], told, strict=True):
                assert {**theirs, **dict.fromkeys(unlike)} == {
                    **ours,
                    **dict.fromkeys(unlike),
                }
            assert seen["pool"] == "watched"
            assert (seen["pid"], seen["wanted"]) == (os.getpid(), 2)
            assert "pytest" in seen["program"] or "-c" in seen["program"]
            short = await say("status")
            assert short["totals"] == json.loads(json.dumps(pool.stats().totals()))

            (busy,) = [one for one in seen["workers"] if one["job"]]
            assert busy["function"] == "jobs.meet"
            dumped = await say("dump", worker=busy["worker"])
            (dump,) = dumped["workers"]
            assert dump["pid"] == busy["pid"]
            assert "in meet" in dump["text"]
            leave.open()
            await job

            # what has happened since somebody looks
            with pytest.raises(ValueError, match="bad"):
                await pool.run(jobs.raise_value_error)
            await asyncio.sleep(0)
            later = await say("look", since=seen["events"][-1]["number"])
            assert [one["event"] for one in later["events"]] == ["job_failed"]
            text = later["events"][0]["text"]
            assert text.startswith("job failed: jobs.raise_value_error #")
            assert text.endswith(": bad")
            while not (await say("look"))["lag"]:
                pass  # it is measured from the first look on

            assert (await say("scale", workers=3))["workers"] == 3
            assert pool.stats().workers == 3
            assert (await say("reload"))["seconds"] > 0
            crashed = asyncio.get_running_loop().create_future()
            victim = pool.workers()[0]

            def note(event):
                if event.worker == victim.worker:
                    crashed.set_result(event)

            pool.on(events.WorkerEnded, note)
            assert (await say("kill", worker=victim.worker))["pid"] == victim.pid
            ended = await crashed
            assert ended.signal == "SIGKILL"

            for command, details, why in (
                ("dance", {}, "no command; there are: status, look, dump"),
                ("kill", {"worker": 999}, "there is no worker 999"),
                ("dump", {"worker": 999}, "there is no worker 999"),
                ("scale", {"workers": 0}, "1 to 4096"),
                ("scale", {}, "workers"),
                ("look", {"since": []}, "int"),
            ):
                answer = await say(command, **details)
                assert not answer["ok"]
                assert why in answer["error"]

            assert await say("drain") == {"ok": True}
            with pytest.raises(PoolClosed):
                pool.submit(jobs.nothing)


async def test_only_its_user_may_come_and_it_goes_with_the_pool(monkeypatch, caplog):
    pool = Pool(1)
    async with pool:
        line = await line_to(pool)
        path = socket_of(pool)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        with monkeypatch.context() as patch:
            somebody = runtime.Peer(1, os.getuid() + 1)
            patch.setattr(runtime, "peer_of", lambda _: somebody)
            with pytest.raises(ConnectionError):
                await ask(pool, "status")
            assert "is refused" in caplog.text
        assert (await ask(pool, "status"))["ok"]
    assert not path.exists()
    with line, pytest.raises(ConnectionError):  # who is connected notices
        line.ask("status")


async def test_one_option_turns_it_off_and_short_lives_have_none(monkeypatch):
    async with Pool(1, control=False) as pool:
        assert pool._engine.operated is None
        await pool.run(jobs.nothing)
        assert not socket_of(pool).exists()
    monkeypatch.setattr(operated, "_DELAY", 60.0)
    async with Pool(1) as pool:
        await pool.run(jobs.nothing)
        assert not socket_of(pool).exists()
    async with Pool(engine="inline") as pool:  # it has nothing to show
        await pool.run(jobs.nothing)
        assert pool._engine.home == ""


def test_an_executor_is_watched_like_any_pool():
    with Executor(1, name="thread") as executor:
        assert executor.submit(jobs.add, 1, 1).result() == 2
        pool = executor._bridge._pool
        assert asyncio.run(ask(pool, "status"))["totals"]["completed"] == 1


async def test_a_job_whose_worker_is_killed_is_lost(gate):
    reached = gate()
    async with Pool(1) as pool:
        job = pool.submit(jobs.loop_in_python, str(reached))
        await reached.reached()
        await ask(pool, "kill", worker=pool.workers()[0].worker)
        with pytest.raises(WorkerLost, match="SIGKILL"):
            await job


async def test_while_nobody_looks_events_of_jobs_are_not_made(monkeypatch):
    from offloop import recent

    monkeypatch.setattr(recent, "_PATIENCE", 0.0)
    async with Pool(1) as pool:
        heard = pool._listeners.heard
        assert (await ask(pool, "status"))["ok"]
        assert events.JobFailed not in heard
        assert events.WorkerEnded in heard
        await ask(pool, "look")
        await until(lambda: events.JobFailed not in heard)  # nobody goes on looking
        assert events.WorkerEnded in heard


_PROGRAM = """
    import asyncio, sys
    from pathlib import Path
    from offloop import Pool, operated
    operated._DELAY = 0.0

    async def main():
        async with Pool(1) as pool:
            path = Path(pool._engine.home, operated.NAME)
            while not path.exists():
                await asyncio.sleep(0.001)
            print(path, flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
"""


@pytest.mark.slow
async def test_nothing_is_left_of_it_when_the_program_is_killed():
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", textwrap.dedent(_PROGRAM)), stdout=subprocess.PIPE
    )
    folder = os.path.dirname(await program.stdout.readline())
    program.send_signal(signal.SIGKILL)
    await program.wait()
    await until(lambda: not os.path.exists(folder))
