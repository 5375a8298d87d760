"""A worker that dies costs the job that it ran, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import psutil
import pytest

import jobs
from offloop import Pool, handles
from offloop.errors import PoisonJob, StartError, WorkerLost


@pytest.mark.parametrize(
    ("function", "argument", "ending"),
    [
        (jobs.die_by, signal.SIGKILL, "SIGKILL"),
        (jobs.die_by, signal.SIGTERM, "SIGTERM"),
        (jobs.die_by, signal.SIGABRT, "SIGABRT"),
        (jobs.die_with_code, 7, 7),
        (jobs.die_with_code, 0, 0),
    ],
)
async def test_the_error_names_job_process_and_cause(function, argument, ending):
    async with Pool(1) as pool:
        before = await pool.run(jobs.pid)
        job = pool.submit(function, argument)
        with pytest.raises(WorkerLost, match="likely cause") as caught:
            await job
        error = caught.value
        assert error.job_id == job.id
        assert error.pid == before
        assert error.worker == job.worker
        assert error.function == f"jobs.{function.__name__}"
        assert (error.signal or error.exitcode) == ending
        assert error.peak_rss > 1_000_000
        assert await pool.run(jobs.pid) != before
        assert pool.stats().workers_lost == 1


async def test_a_segfault_shows_where_it_was():
    async with Pool(1) as pool:
        with pytest.raises(WorkerLost, match="SIGSEGV") as caught:
            await pool.run(jobs.segfault)
        assert "Segmentation fault" in caught.value.output
        assert "in segfault" in str(caught.value)


async def test_all_other_jobs_finish(tmp_path):
    log = tmp_path / "log"
    async with Pool(2) as pool:
        for _ in range(20):  # short jobs share inboxes from now on
            await asyncio.gather(*(pool.run(jobs.add, 1, 1) for _ in range(20)))
        quick = [pool.submit(jobs.note_and_add, str(log), n, 1) for n in range(500)]
        fatal = [pool.submit(jobs.die_by, signal.SIGKILL) for _ in range(5)]
        more = [pool.submit(jobs.note_and_add, str(log), n, 1) for n in range(500, 999)]
        results = await asyncio.gather(*quick, *more)
        assert results == [n + 1 for n in range(999)]
        for job in fatal:
            with pytest.raises(WorkerLost):
                await job
        ran = sorted(int(line) for line in log.read_text().split())
        assert ran == list(range(999))  # each of them once


async def test_jobs_behind_a_fatal_one_in_the_same_inbox_finish(tmp_path):
    """The answer given just before the death arrives, what came after it runs once."""

    def perhaps_die(number, fatal):
        with open(log, "a") as file:
            file.write(f"{number}\n")
        if number == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    log = str(tmp_path / "log")
    async with Pool(1) as pool:
        for _ in range(20):
            await pool.run(perhaps_die, -1, 0)
        going = [pool.submit(perhaps_die, n, 30) for n in range(60)]
        await asyncio.wait(going)
        lost = [n for n, job in enumerate(going) if job.exception() is not None]
        assert lost == [30]
        assert [job.result() for job in going if not job.exception()] == [
            n for n in range(60) if n != 30
        ]
        ran = [int(line) for line in (tmp_path / "log").read_text().split()]
        assert sorted(ran) == [-1] * 20 + list(range(60))


async def test_a_job_that_kills_every_worker_is_poison():
    async with Pool(1) as pool:
        job = pool.options(retries=9).submit(jobs.die_by, signal.SIGKILL)
        with pytest.raises(PoisonJob, match="killed 3 workers") as caught:
            await job
        assert caught.value.story in pool.story(job)
        assert "kills 3" in caught.value.story
        assert isinstance(caught.value.__cause__, WorkerLost)
        assert job.attempts == 3
        assert await pool.run(jobs.add, 1, 1) == 2


async def until_completed(pool, count):
    async with asyncio.timeout(60):
        while pool.stats().completed < count:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.mark.slow
async def test_calls_survive_that_all_workers_are_killed_again_and_again():
    """The short form of `benchmarks/kills.py`."""
    pids = set()
    pool = Pool(2)
    pool.on("worker_ready", lambda event: pids.add(event.pid))
    pool.on("worker_ended", lambda event: pids.discard(event.pid))
    over = asyncio.Event()

    async def call(number):
        while not over.is_set():
            number += 1
            assert await calls.run(jobs.add, number, 1) == number + 1

    async with pool:
        calls = pool.options(retries=9)
        await pool.ready()
        going = [asyncio.ensure_future(call(n)) for n in range(64)]
        for _ in range(5):
            before = pool.stats().completed
            await until_completed(pool, before + 500)
            for pid in list(pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        over.set()
        await asyncio.gather(*going)
        stats = pool.stats()
    assert stats.lost == stats.failed == 0
    assert stats.exits["crashed"] >= 5


async def test_an_idle_worker_that_is_killed_is_replaced():
    async with Pool(1) as pool:
        victim = await pool.run(jobs.pid)
        os.kill(victim, signal.SIGKILL)
        with psutil_gone(victim):
            assert await pool.run(jobs.pid) != victim


async def test_a_worker_that_leaves_a_grandchild_takes_it_along(gate):
    reached, never = gate(), gate()
    async with Pool(1) as pool:
        job = pool.submit(jobs.spawn_grandchild, str(reached), str(never))
        grandchild = psutil.Process(await reached.reached())
        job.cancel()
        await pool.run(jobs.pid)
        await asyncio.to_thread(psutil.wait_procs, [grandchild], 10)
        assert not grandchild.is_running()


@pytest.mark.parametrize("way", ["session", "twice", "forks"])
async def test_what_has_left_the_group_goes_with_its_own_worker_alone(gate, way):
    theirs, ours, never = gate(), gate(), gate()
    async with Pool(2) as pool:
        other = pool.submit(jobs.spawn_apart, str(theirs), str(never), way)
        bystander = psutil.Process(await theirs.reached())
        job = pool.submit(jobs.spawn_apart, str(ours), str(never), way)
        victim = psutil.Process(await ours.reached())
        assert os.getsid(victim.pid) == victim.pid
        foreign = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        job.cancel()
        await asyncio.to_thread(psutil.wait_procs, [victim], 10)
        assert not victim.is_running()
        assert bystander.is_running()
        other.cancel()
        await asyncio.to_thread(psutil.wait_procs, [bystander], 10)
        assert not bystander.is_running()
        assert await foreign.communicate(b"alive") == (b"alive", None)
        assert foreign.returncode == 0


async def test_a_daemon_outlives_its_job_and_not_its_worker(gate):
    reached = gate()
    async with Pool(1) as pool:
        await pool.run(jobs.spawn_apart, str(reached), "", "forks")
        daemon = psutil.Process(await reached.reached())
        await pool.run(jobs.pid)
        assert daemon.is_running()
    await asyncio.to_thread(psutil.wait_procs, [daemon], 10)
    assert not daemon.is_running()


async def test_what_jobs_have_started_ends_with_a_forkserver_that_is_killed(gate):
    """It cannot do that itself any more: the program looks for what bears its mark."""
    never = gate()
    async with Pool(3) as pool:
        started = []
        for way in ("child", "session", "forks"):
            reached = gate()
            if way == "child":
                pool.submit(jobs.spawn_grandchild, str(reached), str(never))
            else:
                pool.submit(jobs.spawn_apart, str(reached), str(never), way)
            started.append(psutil.Process(await reached.reached()))
        forkserver = psutil.Process(pool._engine._supervisor.ready_workers[0].pid)
        forkserver.parent().kill()
        _, alive = await asyncio.to_thread(psutil.wait_procs, started, 10)
        assert not alive
        assert await pool.run(jobs.add, 1, 1) == 2


async def test_a_killed_forkserver_is_replaced():
    async with Pool(2, retries=1) as pool:
        await pool.ready()
        worker = psutil.Process(await pool.run(jobs.pid))
        forkserver = worker.parent()
        assert forkserver.ppid() == os.getpid()
        forkserver.kill()
        await asyncio.to_thread(psutil.wait_procs, [worker], 10)
        assert await pool.run(jobs.pid) != worker.pid


async def test_a_stopped_worker_is_killed_when_its_job_is_out_of_time(gate):
    reached = gate()
    async with Pool(1, grace=0.05) as pool:
        await pool.run(
            jobs.nothing
        )  # the worker is warm: the job soon comes to the gate
        job = pool.options(run_timeout=1).submit(jobs.loop_in_python, str(reached))
        os.kill(await reached.reached(), signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            await job
        assert await pool.run(jobs.add, 1, 1) == 2


@pytest.mark.slow
async def test_a_stopped_forkserver_does_not_keep_the_pool_from_closing(monkeypatch):
    monkeypatch.setattr(handles, "PATIENCE", 0.2)
    pool = await Pool(1, grace=0.01).start()
    worker = psutil.Process(await pool.run(jobs.pid))
    forkserver = worker.parent()
    forkserver.suspend()
    await pool.close()
    _, alive = await asyncio.to_thread(psutil.wait_procs, [worker], 10)
    assert not alive
    assert not forkserver.is_running()


async def test_a_last_word_that_is_read_with_the_end_explains_it(gate):
    """The worker left because it should; its answer and its end come at once."""
    reached = gate()
    async with Pool(1, grace=30) as pool:
        job = pool.submit(jobs.loop_in_python, str(reached))
        worker = psutil.Process(await reached.reached())
        (line,) = pool._engine._lines.values()
        asyncio.get_running_loop().remove_reader(line.worker.channel.fd)
        job.cancel()
        await asyncio.to_thread(psutil.wait_procs, [worker], 30)
        assert await pool.run(jobs.add, 1, 1) == 2
        stats = pool.stats()
    assert stats.exits == {"cancelled": 1}
    assert stats.workers_lost == 0


class SilentChannel:
    """A channel of which nothing arrives: it is always still on its way."""

    def __init__(self, channel):
        self._channel = channel

    def receive_nowait(self):
        return None

    def __getattr__(self, name):
        return getattr(self._channel, name)


async def test_a_last_word_that_is_only_in_the_page_explains_the_end(gate):
    """The end of the process may be noticed before its last message is there."""
    reached = gate()
    ends = []
    async with Pool(1, grace=30) as pool:
        pool.on("worker_ended", ends.append)
        job = pool.submit(jobs.loop_in_python, str(reached))
        await reached.reached()
        (line,) = pool._engine._lines.values()
        line.worker.channel = SilentChannel(line.worker.channel)
        job.cancel()
        assert await pool.run(jobs.add, 1, 1) == 2
        stats = pool.stats()
    assert stats.exits == {"cancelled": 1}
    assert stats.workers_lost == 0
    assert ends[0].reason == "cancelled"


async def test_jobs_go_on_while_a_pool_that_gave_up_has_workers(gate):
    """What lives is kept, and used; only who waits for more workers is told."""
    reached, until = gate(), gate()
    async with Pool(2) as pool:
        await pool.ready()
        job = pool.submit(jobs.meet, str(reached), str(until))
        busy = await reached.reached()
        pool._engine.gave_up(StartError("no more workers"))
        idle = await pool.run(jobs.pid)
        assert idle != busy
        with pytest.raises(StartError, match="no more workers"):
            await pool.resize(3)
        until.open()
        assert await job == "met"


@pytest.mark.slow
async def test_a_large_answer_is_not_lost_with_the_next_job(tmp_path):
    """What comes after it does not begin, and crash, before the answer has arrived."""

    def work(number, fatal):
        if fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        if number is None:
            return None
        with open(log, "a") as file:
            file.write(f"{number}\n")
        return bytes(5_000_000)

    log = str(tmp_path / "log")
    async with Pool(1) as pool:
        for number in range(20):
            for _ in range(300):  # short: jobs share its inbox from now on
                await pool.run(work, None, False)
            large = pool.submit(work, number, False)
            for _ in range(3):  # the next one leaves in a message of its own
                await asyncio.sleep(0)
            fatal = pool.submit(work, None, True)
            assert len(await large) == 5_000_000
            with pytest.raises(WorkerLost):
                await fatal
    ran = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert ran == list(range(20))


def psutil_gone(pid):
    """Wait, on leaving, until a process is gone."""
    import contextlib

    @contextlib.contextmanager
    def waiting():
        process = psutil.Process(pid) if psutil.pid_exists(pid) else None
        yield
        if process is not None:
            psutil.wait_procs([process], 10)
            assert not process.is_running()

    return waiting()


async def test_answers_kept_at_the_death_free_no_credit_of_the_dead(tmp_path):
    """A queue behind the dying worker: nothing is sent to it in its last moment."""

    def perhaps_die(number):
        if number % 97 == 96:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    async with Pool(1) as pool:
        for _ in range(20):
            await pool.run(perhaps_die, 0)
        going = [pool.submit(perhaps_die, n) for n in range(2000)]
        await asyncio.wait(going)
        for n, job in enumerate(going):
            if n % 97 == 96:
                assert isinstance(job.exception(), WorkerLost)
            else:
                assert job.result() == n
        assert pool.stats().workers_lost == 2000 // 97
