"""What is shown of long work, and that showing it changes nothing."""

from __future__ import annotations

import asyncio
import io
import sys

import pytest

import jobs
import jobs_streams as gens
from offloop import Pool, progress, showing
from offloop.errors import UsageError

rich_progress = pytest.importorskip("rich.progress")
Console = pytest.importorskip("rich.console").Console
tqdm = pytest.importorskip("tqdm").tqdm


class Terminal(io.StringIO):
    """A terminal that keeps what it was told."""

    def isatty(self):
        return True

    @property
    def last(self):
        return self.getvalue().rstrip("\n").rpartition("\x1b[K")[2]


async def numbers(count):
    for number in range(count):
        await asyncio.sleep(0)
        yield number


async def test_items_pass_through_and_a_line_shows_them(monkeypatch):
    monkeypatch.setattr(showing, "_PAUSE", 0.0)
    monkeypatch.setenv("COLUMNS", "100")
    terminal = Terminal()
    shown = progress(numbers(4), 4, description="read", bar="plain", file=terminal)
    assert [item async for item in shown] == [0, 1, 2, 3]
    pictures = terminal.getvalue().split("\r\x1b[K")
    shares = [text.split()[1] for text in pictures[1:]]
    assert shares == ["0%", "25%", "50%", "75%", "100%", "100%"]
    assert terminal.last.startswith("read  100% ####################  4/4")
    assert terminal.getvalue().endswith("\n")


async def test_a_line_is_no_wider_than_its_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    shown = progress(numbers(4), description="x" * 99, bar="plain", file=terminal)
    assert len([item async for item in shown]) == 4
    assert all(len(text) <= 22 for text in terminal.getvalue().split("\x1b[K"))


async def test_nothing_is_shown_where_nobody_looks():
    log = io.StringIO()
    assert [n async for n in progress(numbers(3), file=log)] == [0, 1, 2]
    assert [n async for n in progress(numbers(3), bar="off", file=Terminal())]
    assert log.getvalue() == ""


async def test_a_log_gets_a_line_now_and_then(monkeypatch):
    monkeypatch.setattr(showing, "_PAUSE", 0.0)
    log = io.StringIO()
    shown = progress(numbers(3), 2000, bar="plain", file=log)
    assert len([n async for n in shown]) == 3
    (line,) = log.getvalue().splitlines()  # the last one, in any case
    assert "3/2,000" in line
    monkeypatch.setattr(showing, "_LOG_PAUSE", 0.0)
    shown = progress(numbers(3), bar="plain", file=log)
    assert len([n async for n in shown]) == 3
    assert len(log.getvalue().splitlines()) == 5


async def test_map_streams_and_jobs_are_shown():
    async with Pool(1) as pool:
        terminal = Terminal()
        results = pool.map(jobs.add, range(50))
        shown = progress(results, 50, bar="plain", file=terminal)
        assert [n async for n in shown] == list(range(50))
        assert "50/50" in terminal.last
        stream = pool.stream(gens.report_and_yield, 7)
        shown = progress(stream, bar="plain", file=terminal)
        assert [n async for n in shown] == list(range(7))
        assert "7/7" in terminal.last
        assert terminal.last.endswith("part 6")
        shown = progress(pool.stream(gens.count, 7), bar="plain", file=terminal)
        assert len([n async for n in shown]) == 7
        assert terminal.last.startswith("7  ")
        job = pool.submit(jobs.report_often, 10)
        assert await progress(job, bar="plain", file=terminal) == 10
        assert "10/10" in terminal.last
        assert terminal.last.endswith("step 10")
        several = [pool.submit(jobs.add, n) for n in range(3)]
        ended = progress(several, bar="plain", file=terminal)
        assert sorted([job.result() async for job in ended]) == [0, 1, 2]
        assert "3/3" in terminal.last


async def test_errors_and_early_ends_pass_through(gate):
    reached, cleaned, never = gate(), gate(), gate()
    async with Pool(1) as pool:
        terminal = Terminal()
        results = pool.map(jobs.raise_value_error, ["bad"])
        with pytest.raises(ValueError, match="bad"):
            async for _ in progress(results, bar="plain", file=terminal):
                pass
        assert terminal.getvalue().endswith("\n")
        with pytest.raises(ValueError, match="bad"):
            await progress(pool.submit(jobs.raise_value_error), file=terminal)
        stream = pool.stream(gens.clean_up, str(reached), str(cleaned))
        shown = progress(stream, bar="off")
        await anext(shown)
        await shown.aclose()
        await cleaned.reached()
        job = pool.submit(jobs.wait_for, str(never))
        showing_it = asyncio.create_task(progress(job, bar="off"))
        await asyncio.sleep(0)
        showing_it.cancel()
        await asyncio.wait([showing_it, job])
        assert job.cancelled()
        one = pool.submit(jobs.add, 1, 1)
        async for _ in progress([one, pool.submit(jobs.add, 1, 1)], bar="off"):
            break


@pytest.mark.parametrize("kind", ["rich", "tqdm"])
async def test_a_library_draws_if_it_is_installed(kind):
    terminal = Terminal()
    shown = progress(numbers(9), 9, description="read", bar=kind, file=terminal)
    assert len([n async for n in shown]) == 9
    assert "read" in terminal.getvalue()
    assert "9/9" in terminal.getvalue()


async def test_your_own_bars_are_moved_and_stay_open(monkeypatch):
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # else its thread would stay
    terminal = Terminal()
    with tqdm(total=20, file=terminal) as bar:
        for _ in range(2):
            assert len([n async for n in progress(numbers(9), bar=bar)]) == 9
        assert bar.n == 18
        assert bar.total == 20
        shown = progress(numbers(2), 2, description="two", bar=bar)
        assert len([n async for n in shown]) == 2
        assert bar.total == 2
        assert bar.desc == "two"
    with rich_progress.Progress(disable=True) as display:
        shown = progress(numbers(3), 3, description="a", bar=display)
        assert len([n async for n in shown]) == 3
        assert len([n async for n in progress(numbers(3), bar=display)]) == 3
        first, second = display.tasks
    assert (first.completed, first.total, first.description) == (3, 3, "a")
    assert (second.completed, second.total) == (3, None)


async def test_brackets_and_lines_in_what_a_job_says_do_not_disturb():
    terminal = Terminal()
    with rich_progress.Progress(console=Console(file=terminal, width=200)) as display:
        async with Pool(1, engine="inline") as pool:
            job = pool.submit(jobs.report_words, "[/tmp/a] [bold]b[/bold]")
            await progress(job, bar=display)
    assert "[/tmp/a] [bold]b[/bold]" in terminal.getvalue()
    own = Terminal()
    async with Pool(1, engine="inline") as pool:
        job = pool.submit(jobs.report_words, "[/tmp/a]")
        await progress(job, bar="rich", file=own)
        assert "[/tmp/a]" in own.getvalue()
        job = pool.submit(jobs.report_words, "two\nlines")
        await progress(job, bar="plain", file=own)
    assert own.last.endswith("two lines")


async def test_the_best_that_is_installed_is_taken(monkeypatch):
    assert showing._best() == "rich"
    monkeypatch.setattr(showing, "find_spec", lambda name: name == "tqdm")
    assert showing._best() == "tqdm"
    monkeypatch.setattr(showing, "find_spec", lambda name: None)
    assert showing._best() == "plain"
    with pytest.raises(UsageError, match="pip install rich"):
        progress(numbers(1), bar="rich")
    terminal = Terminal()
    assert [n async for n in progress(numbers(1), file=terminal)] == [0]
    assert terminal.last.startswith("1")


def test_what_cannot_show_or_be_shown_is_an_error():
    for bar in (sys, "fancy"):
        with pytest.raises(UsageError, match="bar takes"):
            progress(numbers(1), bar=bar)
    with pytest.raises(TypeError, match="not iterable"):
        progress(3)


async def test_a_list_of_other_things_is_an_error():
    with pytest.raises(TypeError, match="shows an asynchronous iterable"):
        await anext(progress([1, 2]))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (61.9, "1:01"), (3661, "1:01:01")]
)
def test_clocks(seconds, text):
    assert showing._clock(seconds) == text
