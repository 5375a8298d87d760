"""Pools that several programs share: a coordinator here, and its clients."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time

import pytest

import coordinators
import jobs
import jobs_payloads
import jobs_streams
import waiting
from offloop import Pool, messages, runtime
from offloop.cluster.coordinate import PoolSettings, open_coordinator
from offloop.engines.uplink import VERSION
from offloop.errors import (
    JobTimeout,
    PoolFull,
    PoolLost,
    RemoteError,
    StartError,
    UsageError,
    WorkerLost,
)
from offloop.wire.lifeline import Lifeline


@pytest.fixture(autouse=True)
def _own_folder(own_runtime):
    """Let the coordinator of each test be the only one."""


@contextlib.asynccontextmanager
async def coordinator(**settings):
    settings = PoolSettings(**{"compute": 1, **settings})
    async with open_coordinator(settings, runtime.make_home(settings.name)) as one:
        yield one


@contextlib.asynccontextmanager
async def shared(*, clients=1, options=None, **settings):
    """Open a coordinator and clients of it."""
    async with coordinator(**settings) as owner, contextlib.AsyncExitStack() as stack:
        pools = [
            await stack.enter_async_context(Pool(engine="shared", **(options or {})))
            for _ in range(clients)
        ]
        yield owner, *pools


@pytest.mark.slow
async def test_what_a_private_pool_does_a_shared_one_does_too(tmp_path):
    async with shared(compute=2) as (_, pool):
        await pool.ready()
        assert await pool.run(jobs.add, 1, b=2) == 3
        base = 40
        assert await pool.run(lambda x: x + base, 2) == 42
        assert [x async for x in pool.map(jobs.add, range(50))] == list(range(50))
        assert await pool.run("abc".upper) == "ABC"
        assert await pool.run(jobs.add_async, 1, 2) == 3
        with pytest.raises(ValueError, match="bad") as raised:
            await pool.run(jobs.raise_value_error)
        assert "raise_value_error" in str(raised.value.__cause__)
        with pytest.raises(RemoteError):
            await pool.run(jobs.system_exit)
        ref = await pool.put({"a": 1})
        assert await pool.run(jobs.echo, ref) == (({"a": 1},), {})
        with pytest.raises(JobTimeout, match="run_timeout"):
            await pool.options(run_timeout=0.05).run(time.sleep, 60)
        path = str(tmp_path / "once")
        await pool.options(retries=1).run(jobs.die_first_time, path)
        with pytest.raises(WorkerLost, match="code 7") as lost:
            await pool.run(jobs.die_with_code, 7)
        assert lost.value.job_id
        job = pool.submit(jobs.pid)
        await job
        assert job.worker
        assert job.attempts == 1
        assert job.timings.run > 0
        dumps = await pool.dump()
        assert dumps
        assert all(dump.pid for dump in dumps)
        job = pool.submit(jobs.report_often, 3)
        await job
        assert job.progress is not None


@pytest.mark.slow
async def test_nobody_but_worker_and_client_unpickles():
    async with coordinator() as owner:
        code = (
            "import asyncio, jobs_odd, os\n"
            "from offloop import Pool\n"
            "async def main():\n"
            "    async with Pool(engine='shared') as pool:\n"
            "        loaded = jobs_odd.Loaded()\n"
            "        seen = await pool.run(jobs_odd.with_loaded, loaded)\n"
            "        print(*seen, await pool.run(os.getpid), os.getpid())\n"
            "asyncio.run(main())\n"
        )
        client = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            stdout=subprocess.PIPE,
            env=coordinators.environment(),
        )
        said, _ = await client.communicate()
        argument, result, worker, there = map(int, said.split())
        assert (argument, result) == (worker, there)
        assert os.getpid() not in (argument, result)
        assert owner.stats().completed == 2


@pytest.mark.slow
async def test_an_unchanged_program_goes_there_by_its_environment():
    async with coordinator() as owner:
        code = (
            "import asyncio, os\n"
            "from offloop import Executor, offload\n"
            "where = offload(os.getppid)\n"
            "async def main():\n"
            "    print(await where())\n"
            "asyncio.run(main())\n"
            "with Executor(max_workers=1) as executor:\n"
            "    print(executor.submit(os.getppid).result())\n"
        )
        client = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            code,
            stdout=subprocess.PIPE,
            env=coordinators.environment(OFFLOOP_ENGINE="shared"),
        )
        said, _ = await client.communicate()
        assert len(set(said.split())) == 1  # the same forkserver is their parent
        assert owner.stats().completed == 2


@pytest.mark.slow
async def test_large_payloads_lie_where_they_were_written():
    numpy = pytest.importorskip("numpy")
    async with shared(options={"arena_limit": "64MiB"}) as (owner, pool):
        data = os.urandom(3_000_000)
        assert await pool.run(jobs_payloads.same, data) == data
        array = pool.empty(1_000_000, "u1")
        array[:] = 3
        assert await pool.run(jobs_payloads.total, array) == [3_000_000]
        for _ in range(8):  # more than there is room for at once
            back = await pool.run(jobs_payloads.same, numpy.ones(2_000_000))
            assert back.sum() == 2_000_000
            del back
        ref = await pool.put(numpy.ones(1_000_000))
        assert await pool.run(jobs_payloads.total, ref) == [1_000_000]
        assert owner._memory.arena.used == 0  # nothing was copied there
        (client,) = owner.clients.values()
        del ref, array
        # An answer brings along what a worker looks at no more.
        async with asyncio.timeout(waiting.PATIENCE):
            while client.puts or client._looks or waiting.used(pool):
                await pool.run(jobs.add, 1)


@pytest.mark.slow
async def test_a_generator_streams_its_parts_as_far_as_they_are_wanted():
    async with shared() as (owner, pool):
        parts = [part async for part in pool.stream(jobs_streams.count, 300)]
        assert parts == list(range(300))
        large = pool.stream(jobs_streams.large, 4, 300_000)
        assert [len(part) async for part in large] == [300_000] * 4
        async with contextlib.aclosing(pool.stream(jobs_streams.count, 10**9)) as some:
            assert await anext(some) == 0
        assert await pool.run(jobs.add, 1) == 1
        await owner.drain()


@pytest.mark.slow
async def test_cancelling_stops_the_work(gate):
    async with shared() as (owner, pool):
        reached, never = gate(), gate()
        job = pool.submit(jobs.meet, str(reached), str(never))
        waiting = pool.submit(jobs.reach, str(never))
        await reached.reached()
        job.cancel()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert await pool.run(jobs.add, 1) == 1
        await owner.drain()
        assert owner.stats().cancelled == 2


@pytest.mark.slow
async def test_clients_share_fairly_and_urgent_jobs_go_first(gate):
    async with shared(clients=2) as (_, greedy, modest):
        reached, until = gate(), gate()
        first = greedy.submit(jobs.meet, str(reached), str(until))
        await reached.reached()
        named = {}

        def submit(pool, name):
            named[pool.submit(jobs.nothing)] = name

        for _ in range(40):
            submit(greedy, "greedy")
        await asyncio.sleep(0)  # they are sent
        await greedy.dump()  # and were heard
        for _ in range(2):
            submit(modest, "modest")
        submit(modest.options(priority=1), "urgent")
        await asyncio.sleep(0)
        await modest.dump()
        until.open()
        await asyncio.gather(first, *named)
        began = sorted(named, key=lambda job: job._call.started_at)
        order = [named[job] for job in began]
        assert order.index("urgent") == 0
        assert max(n for n, name in enumerate(order) if name == "modest") < 30


@pytest.mark.slow
async def test_a_full_coordinator_takes_no_more_and_lets_others_wait(gate):
    async with shared(max_pending=3) as (_, pool):
        reached, until = gate(), gate()
        first = pool.submit(jobs.meet, str(reached), str(until))
        await reached.reached()
        waiting = [asyncio.ensure_future(pool.run(jobs.add, n)) for n in range(30)]
        await asyncio.sleep(0)  # they are queued
        refused = pool.options(on_full="raise").submit(jobs.nothing)
        with pytest.raises(PoolFull, match="coordinator takes no more"):
            await refused
        with pytest.raises(PoolFull):
            pool.submit(jobs.nothing)
        until.open()
        assert await asyncio.gather(*waiting) == list(range(30))
        await first


@pytest.mark.slow
async def test_a_client_has_a_limit_of_its_own(gate):
    async with shared(clients=2, max_pending_per_client=2) as (_, one, other):
        reached, until = gate(), gate()
        jobs_of_one = [one.submit(jobs.meet, str(reached), str(until))]
        await reached.reached()
        jobs_of_one.append(one.submit(jobs.nothing))
        with pytest.raises(PoolFull):
            one.submit(jobs.nothing)
        job = other.submit(jobs.add, 5)
        until.open()
        assert await job == 5
        await asyncio.gather(*jobs_of_one)


def _open_inodes():
    """Return the numbers of all files that this process has open."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(os.fstat(int(number)).st_ino)
    return found


@pytest.mark.slow
async def test_a_client_that_dies_takes_its_jobs_and_memory_along(gate):
    async with shared() as (owner, pool):
        reached, never = gate(), gate()
        code = (
            "import asyncio, jobs, sys\n"
            "from offloop import Pool\n"
            "async def main():\n"
            "    pool = await Pool(engine='shared').start()\n"
            "    for _ in range(5): pool.submit(jobs.meet, *sys.argv[1:])\n"
            "    await pool.run(jobs.echo, bytes(1_000_000))\n"
            "asyncio.run(main())\n"
        )
        client = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", code, str(reached), str(never)],
            env=coordinators.environment(),
        )
        await reached.reached()
        await waiting.until(
            lambda: owner.stats().submitted == 6
        )  # the last one is large
        memory = [one._source[2] for one in owner.clients.values()]
        client.kill()
        client.wait()
        assert await pool.run(jobs.add, 1) == 1
        await owner.drain()
        assert owner.stats().cancelled == 6
        assert len(owner.clients) == 1
        assert len(set(memory) & _open_inodes()) == 1


@pytest.mark.slow
async def test_jobs_of_a_lost_coordinator_end_and_its_successor_gets_the_next(gate):
    with coordinators.folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OFFLOOP_RUNTIME_DIR", folder)
        process = coordinators.start("--compute", "1")
        async with Pool(engine="shared") as pool:
            reached, never = gate(), gate()
            job = pool.submit(jobs.meet, str(reached), str(never))
            worker = await reached.reached()
            coordinators.end(process, 9)
            with pytest.raises(PoolLost, match="was with the coordinator"):
                await job
            later = pool.submit(jobs.pid)  # waits for the successor
            process = coordinators.start("--compute", "1")
            assert await later != worker
            assert await pool.run(lambda: 7) == 7
        assert coordinators.end(process) == 0
        assert os.listdir(folder) == []


@pytest.mark.slow
async def test_there_is_one_coordinator_of_a_name():
    async with coordinator():
        again = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "offloop", "serve", stderr=subprocess.PIPE
        )
        _, said = await again.communicate()
        assert again.returncode == 3
        assert b"already" in said
        async with coordinator(name="other"), Pool(engine="shared://other") as pool:
            assert await pool.run(jobs.add, 1) == 1


async def test_without_a_coordinator_it_says_what_to_start():
    with pytest.raises(StartError, match=r"pool\.sock.*offloop serve"):
        await Pool(engine="shared").start()


async def test_a_pool_of_somebody_else_has_no_private_options(monkeypatch, caplog):
    with pytest.raises(UsageError, match="memory_limit cannot be given"):
        await Pool(engine="shared", memory_limit="1GiB").start()
    with pytest.raises(UsageError, match="is no name"):
        await Pool(engine="shared://../x").start()
    monkeypatch.setenv("OFFLOOP_ENGINE", "shared")
    caplog.set_level("INFO", "offloop")
    with pytest.raises(StartError):  # as there is no coordinator
        await Pool(memory_limit="1GiB", name="mine").start()
    assert "memory_limit of pool 'mine' is not its own here" in caplog.text


@pytest.mark.slow
async def test_resize_and_reload_are_refused():
    async with shared() as (_, pool):
        with pytest.raises(UsageError, match="--compute"):
            await pool.resize(2)
        with pytest.raises(UsageError, match="not this program's"):
            await pool.reload()


def knock(hello):
    """Come to the door, say a first word, and return all that is answered."""
    line = socket.socket(socket.AF_UNIX)
    line.connect(str(runtime.door_of("shared")))
    with contextlib.closing(Lifeline(line)) as lifeline:
        if hello is not None:
            lifeline.send(hello)
        heard = []
        while not lifeline.ended:
            heard += lifeline.receive()
        return heard


@pytest.mark.slow
async def test_strangers_are_sent_away():
    async with coordinator():
        other = (VERSION[0], 2, 7)
        hello = (messages.HELLO, other, 1, "old")
        (answer,) = await asyncio.to_thread(knock, hello)
        assert answer[0] == messages.REFUSED
        assert "version" in answer[1]
        for nonsense in [(99,), (messages.HELLO, VERSION)]:
            heard = await asyncio.to_thread(knock, nonsense)
            assert [one[0] for one in heard] == [messages.REFUSED]


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
async def test_other_users_are_refused_even_if_they_find_the_door(own_runtime):
    async with coordinator():
        door = runtime.door_of("shared")
        for path in (door, *list(door.parents)[:3], *list(door.parents)[3:4]):
            path.chmod(0o777)
        code = (
            "import os, socket, sys\n"
            "line = socket.socket(socket.AF_UNIX)\n"
            "os.setuid(65534)\n"
            "line.connect(sys.argv[1])\n"
            "print(line.recv(1))\n"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, str(door), stdout=subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert said == b"b''\n"
        with pytest.raises(StartError, match="other users may enter"):
            await Pool(engine="shared").start()
