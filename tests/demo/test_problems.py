"""Problems: what a client reads, and which one each error of the pool is."""

from __future__ import annotations

import pickle

import pytest

from offloop import errors
from offloop.demo.problems import Problem, from_pool


def test_a_problem_is_a_problem_document():
    assert Problem(400, "No.", "w").as_dict() == {
        "type": "about:blank",
        "title": "Bad request",
        "status": 400,
        "detail": "No.",
        "param": "w",
    }
    assert "param" not in Problem(422, "No.").as_dict()


def test_a_status_without_a_title_of_its_own_is_an_error():
    assert str(Problem(418, "No.")) == "418 Error: No."


def test_a_problem_travels_with_all_its_fields():
    problem = Problem(429, "Wait.", "q", {"Retry-After": "3"})
    copy = pickle.loads(pickle.dumps(problem))
    assert vars(copy) == vars(problem)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.PoolClosed("closed"), 503),
        (errors.PoolLost("lost"), 503),
        (errors.StartError("no module x"), 503),
        (errors.JobTimeout("late"), 504),
        (errors.WorkerLost("pid 7 in /home/x"), 502),
        (errors.PoisonJob("again"), 502),
        (errors.MemoryLimitExceeded("much"), 507),
        (errors.InternalError("bug"), 500),
    ],
)
def test_every_error_of_the_pool_is_a_problem_that_tells_nothing_of_the_server(
    error, status
):
    problem = from_pool(error)
    assert problem.status == status
    assert str(error) not in problem.detail
    assert ("Retry-After" in problem.headers) == (status == 503)


@pytest.mark.parametrize(("wait", "header"), [(None, "1"), (0.2, "1"), (3.2, "4")])
def test_a_full_pool_says_when_to_try_again_in_whole_seconds(wait, header):
    problem = from_pool(errors.PoolFull("full", retry_after=wait))
    assert (problem.status, problem.headers) == (429, {"Retry-After": header})
