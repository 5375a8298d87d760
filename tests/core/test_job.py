"""One job's life: the table of moves, both ways, and the story that it tells."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import offloop.core
from offloop.core.children import CHILD_MOVES
from offloop.core.job import MOVES, JobRecord, JobState, Terms
from offloop.core.policies import RunTime
from offloop.errors import InternalError

PAIRS = list(itertools.product(JobState, JobState))
README = Path(offloop.core.__file__).with_name("README.md")


def job_in(state: JobState) -> JobRecord:
    job = JobRecord(7, Terms(RunTime()))
    job.state = state
    return job


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_a_job_moves_along_the_table_only(before, after):
    job = job_in(before)
    if after in MOVES[before]:
        job.move(after)
        assert job.state is after
    else:
        with pytest.raises(InternalError, match=f"from {before.name} to {after.name}"):
            job.move(after)
        assert job.state is before


def test_every_state_is_in_the_table():
    assert set(MOVES) == set(JobState)


def test_what_has_ended_never_moves_again():
    endings = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)
    assert not any(MOVES[state] for state in endings)


def test_every_other_state_can_end():
    for state, moves in MOVES.items():
        assert not moves or {JobState.FAILED, JobState.CANCELLED} <= moves, state


def test_a_forbidden_move_tells_the_story():
    job = job_in(JobState.DONE)
    job.note(2.5, "given back by worker 3")
    with pytest.raises(InternalError) as caught:
        job.move(JobState.SENT)
    assert "job 7 is DONE" in caught.value.story
    assert "2.500 given back by worker 3" in caught.value.story


def test_the_story_names_the_worker_while_there_is_one():
    job = JobRecord(7, Terms(RunTime(), retries=2))
    assert "worker" not in job.story()
    job.worker = 3  # had it, and gave it back
    assert "worker" not in job.story()
    job.move(JobState.SENT)
    assert "job 7 is SENT (worker 3)" in job.story()
    assert "retries 2" in job.story()


def test_notes_stay_in_order():
    job = JobRecord(7, Terms(RunTime()))
    job.note(1.0, "first")
    job.note(2.0, "second")
    assert job.history == [(1.0, "first"), (2.0, "second")]


def table_under(heading: str) -> dict[str, set[str]]:
    """Read a table of moves from the README: a row a state, a cell a move."""
    section = README.read_text(encoding="utf-8").split(heading, 1)[1]
    lines = iter(section.splitlines())
    rows = []
    for line in lines:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip("|").split("|")])
        elif rows:
            break
    names, body = rows[0][1:], rows[2:]
    return {
        row[0]: {name for name, cell in zip(names, row[1:], strict=True) if cell}
        for row in body
    }


@pytest.mark.parametrize(
    ("heading", "moves"),
    [("## Moves of a job", MOVES), ("## Moves of a child", CHILD_MOVES)],
)
def test_the_readme_prints_the_same_table(heading, moves):
    expected = {
        before.name: {after.name for after in afters}
        for before, afters in moves.items()
    }
    assert table_under(heading) == expected
