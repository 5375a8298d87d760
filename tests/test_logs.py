"""What jobs log and print arrives in the logging of its program."""

from __future__ import annotations

import asyncio
import logging
from contextvars import ContextVar

import pytest

import coordinators
import jobs
from offloop import Pool
from offloop.wire.records import MOST

request_id: ContextVar[str] = ContextVar("request_id", default="none")


class Heard(logging.Handler):
    """Keeps what it handles, and the context in which it does."""

    def __init__(self):
        super().__init__()
        self.records = []
        self._loop = asyncio.get_running_loop()
        self._changed = asyncio.Event()

    def emit(self, record):
        record.text = self.format(record)
        record.request = request_id.get()
        self.records.append(record)
        self._loop.call_soon_threadsafe(self._changed.set)

    async def until(self, text):
        """Wait for a record that says something, and return it."""
        async with asyncio.timeout(20):
            while True:
                self._changed.clear()
                for record in self.records:
                    if text in record.text:
                        return record
                await self._changed.wait()


@pytest.fixture
def listen():
    """Return what listens to a logger for the length of a test."""
    undo = []

    def listen(name="", level=logging.INFO):
        logger = logging.getLogger(name)
        handler = Heard()
        undo.append((logger, handler, logger.level))
        logger.addHandler(handler)
        logger.setLevel(level)
        return handler

    yield listen
    for logger, handler, level in undo:
        logger.removeHandler(handler)
        logger.setLevel(level)


async def test_records_of_a_job_arrive_with_where_they_are_from(listen):
    heard = listen("user")
    async with Pool(1, name="telling") as pool:
        request_id.set("r-17")
        job = pool.submit(jobs.log_all, "hello")
        await job
        await heard.until("that is all")
        said, failed, aside, last = heard.records
        assert {one.name for one in heard.records} == {"user.module"}
        assert said.getMessage() == "said hello"
        assert (said.levelname, said.tenant, said.rest) == ("INFO", "seven", "{'a': 1}")
        assert (said.funcName, said.filename) == ("log_all", "jobs.py")
        assert said.lineno > 400
        assert "ValueError: bad" in failed.text
        assert "in raise_value_error" in failed.text
        assert (aside.getMessage(), aside.threadName) == ("from a thread", "aside")
        for one in heard.records:
            assert one.offloop_job == job.id
            assert one.offloop_function == "log_all"
            assert (one.offloop_worker, one.offloop_pool) == (1, "telling")
            assert one.request == "r-17", (
                "filters and handlers see the caller's context"
            )
        assert said.created <= last.created

        # a flood is cut, and what is missing is counted
        own = listen("offloop", logging.WARNING)
        before = len(heard.records)
        await pool.run(jobs.log_many, 10 * MOST)
    arrived = len(heard.records) - before
    told = [one for one in own.records if hasattr(one, "offloop_dropped")]
    assert {one.offloop_worker for one in told} == {1}
    missing = sum(one.offloop_dropped for one in told)
    assert missing > 0
    assert arrived + missing == 10 * MOST


async def test_what_jobs_print_is_logged_if_that_is_wanted(listen, capfd):
    heard = listen("offloop", logging.INFO)
    async with Pool(1, capture_output=True) as pool:
        job = pool.submit(jobs.print_then, "words", jobs.nothing)
        await job
        out = await heard.until("words to stdout")
        err = await heard.until("words to stderr")
        assert (out.name, out.levelno) == ("offloop.stdout", logging.INFO)
        assert (err.name, err.levelno) == ("offloop.stderr", logging.WARNING)
        assert (out.offloop_job, err.offloop_job) == (job.id, job.id)
        await pool.run(print, "no end", end="", flush=True)
        assert (await heard.until("no end")).offloop_function == "print"
    captured = capfd.readouterr()
    assert "words" not in captured.out + captured.err.partition("offloop")[0]


async def test_a_program_may_leave_logging_to_its_workers(listen, capfd):
    heard = listen("user")
    async with Pool(1, forward_logs=False) as pool:
        await pool.run(jobs.log_all, "there")
    assert heard.records == []
    assert "it failed" in capfd.readouterr().err  # as Python does where nothing is set


def configure_logging():
    logging.basicConfig(format="their own: %(message)s")


async def test_a_worker_with_handlers_of_its_own_is_left_alone(listen, capfd):
    heard = listen("user")
    async with Pool(1, initializer=configure_logging) as pool:
        await pool.run(jobs.log_all, "there")
    assert heard.records == []
    assert "their own: that is all" in capfd.readouterr().err


@pytest.mark.slow
async def test_jobs_of_a_shared_pool_log_where_they_came_from(
    listen, own_runtime, monkeypatch
):
    heard = listen("user")
    coordinator = await asyncio.to_thread(coordinators.start, "--compute", "1")
    try:
        async with Pool(engine="shared", name="client") as pool:
            request_id.set("r-18")
            job = pool.submit(jobs.log_all, "far")
            await job
            await heard.until("that is all")
            assert heard.records[0].getMessage() == "said far"
            assert {one.offloop_job for one in heard.records} == {job.id}
            assert {one.request for one in heard.records} == {"r-18"}
    finally:
        assert await asyncio.to_thread(coordinators.end, coordinator) == 0
