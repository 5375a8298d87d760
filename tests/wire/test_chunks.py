"""Many items as one job: each may fail by itself."""

from __future__ import annotations

import asyncio
import pickle
import threading

import pytest

import jobs
from offloop.errors import JobInterrupted, ResultNotEncodable
from offloop.wire import chunks, codec
from offloop.wire.failures import decode_error


def halve(number):
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


async def halve_async(number):
    await asyncio.sleep(0)
    return halve(number)


def run(function, rows, *, spread=False, go_on=False):
    return chunks.run(
        function, (rows, spread, go_on), finish=asyncio.run, job_id=7, name="halve"
    )


def run_async(function, rows, *, spread=False, go_on=False):
    chunk = rows, spread, go_on
    return asyncio.run(chunks.run_async(function, chunk, job_id=7, name="halve"))


def errors(mixed):
    return {place: str(decode_error(data)) for place, data in mixed.failures.items()}


def test_each_item_is_one_argument_or_a_tuple_of_them():
    assert run(halve, [2, 4]) == [1, 2]
    assert run(jobs.add, [(1, 2), (3,)], spread=True) == [3, 3]
    assert run(jobs.echo, [(1, 2)]) == [(((1, 2),), {})]
    assert run_async(jobs.add_async, [(1, 2), (3, 4)], spread=True) == [3, 7]


def test_what_stands_before_the_rows_comes_first_in_each_call():
    chunk = halve, [2, 4], False, False
    call = {"job_id": 7, "name": "halve"}
    assert chunks.run(jobs.apply, chunk, finish=asyncio.run, **call) == [1, 2]
    assert asyncio.run(chunks.run_async(jobs.apply_async, chunk, **call)) == [1, 2]


@pytest.mark.parametrize(
    ("runner", "function"), [(run, halve), (run, halve_async), (run_async, halve_async)]
)
def test_it_stops_at_a_failure_or_goes_on(runner, function):
    stopped = runner(function, [2, 3, 4, 5])
    assert (stopped.results, errors(stopped)) == ([1, None], {1: "3 is odd"})
    gone_on = runner(function, [2, 3, 4, 5], go_on=True)
    assert gone_on.results == [1, None, 2, None]
    assert errors(gone_on) == {1: "3 is odd", 3: "5 is odd"}


def test_an_item_that_exits_is_a_failure_and_one_that_is_stopped_is_not():
    assert list(errors(run(jobs.raise_this, [SystemExit(3)]))) == [0]
    with pytest.raises(JobInterrupted):
        run(jobs.raise_this, [JobInterrupted()], go_on=True)


def through(value):
    payload, buffers = chunks.encode(value, "halve")
    return codec.decode(payload, buffers)


def test_results_travel_as_they_are():
    assert through([1, "two"]) == [1, "two"]
    mixed = through(run(halve, [2, 3]))
    assert (mixed.results, errors(mixed)) == ([1, None], {1: "3 is odd"})


def test_a_result_that_cannot_travel_is_a_failure_of_its_item():
    mixed = through([1, threading.Lock(), 3])
    assert mixed.results == [1, None, 3]
    assert isinstance(decode_error(mixed.failures[1]), ResultNotEncodable)
    before = chunks.Mixed([None, threading.Lock()], {0: b"known"})
    mixed = through(before)
    assert mixed.results == [None, None]
    assert sorted(mixed.failures) == [0, 1]
    assert mixed.failures[0] == b"known"


def test_what_has_failed_survives_pickling():
    mixed = pickle.loads(pickle.dumps(chunks.Mixed([1, None], {1: b"x"})))
    assert (mixed.results, mixed.failures) == ([1, None], {1: b"x"})
