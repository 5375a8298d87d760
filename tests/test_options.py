"""Every knob: what it accepts, what it refuses, and with which words."""

from __future__ import annotations

from datetime import timedelta
from math import inf, nan

import pytest

from offloop import options
from offloop.options import JobOptions, PoolOptions, Recycle, chosen_engine


@pytest.mark.parametrize(
    ("given", "kept"),
    [(5, 5.0), (0.25, 0.25), (timedelta(minutes=2), 120.0), (None, None)],
)
@pytest.mark.parametrize("name", ["timeout", "run_timeout"])
def test_a_time_is_kept_in_seconds(name, given, kept):
    assert getattr(JobOptions(**{name: given}), name) == kept


@pytest.mark.parametrize("given", ["5", True, [5]])
def test_what_is_no_time_is_a_type_error(given):
    with pytest.raises(TypeError, match="timeout takes seconds or a timedelta"):
        JobOptions(timeout=given)


@pytest.mark.parametrize("given", [0, -1, nan, inf, timedelta()])
def test_a_time_must_be_above_zero_and_finite(given):
    with pytest.raises(ValueError, match=r"timeout must be .* above 0, not"):
        JobOptions(timeout=given)


def test_a_time_with_a_least_value_may_be_it():
    assert PoolOptions(grace=0).grace == 0.0
    with pytest.raises(ValueError, match=r"grace must be .* at least 0, not -1"):
        PoolOptions(grace=-1)


@pytest.mark.parametrize("priority", [-5, 0, 5])
def test_a_priority_has_no_bounds(priority):
    assert JobOptions(priority=priority).priority == priority


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"priority": 1.5}, "priority takes a whole number, not 1.5"),
        ({"priority": True}, "priority takes a whole number, not True"),
        ({"retries": "3"}, "retries takes a whole number"),
        ({"retry_on": (3,)}, "retry_on takes exception types, not 3"),
        ({"retry_on": int}, "retry_on takes exception types, not <class 'int'>"),
        ({"retry_on": [ValueError()]}, "retry_on takes exception types"),
    ],
)
def test_a_job_option_of_a_wrong_type(words, match):
    with pytest.raises(TypeError, match=match):
        JobOptions(**words)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"retries": -1}, "retries must be at least 0, not -1"),
        ({"on_full": "drop"}, "on_full is one of raise, wait, not 'drop'"),
        ({"on_cancel": "pray"}, "on_cancel is one of stop, kill, finish, not 'pray'"),
    ],
)
def test_a_job_option_out_of_range(words, match):
    with pytest.raises(ValueError, match=match):
        JobOptions(**words)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (ValueError, (ValueError,)),
        ([ValueError, OSError], (ValueError, OSError)),
        ((), ()),
        (KeyboardInterrupt, (KeyboardInterrupt,)),
    ],
)
def test_retry_on_takes_one_type_or_several(given, kept):
    assert JobOptions(retry_on=given).retry_on == kept


def test_changed_options_are_new_and_checked():
    before = JobOptions(timeout=5, priority=1)
    after = before.changed({"timeout": timedelta(seconds=9), "retries": 2})
    assert after == JobOptions(timeout=9.0, priority=1, retries=2)
    assert before.timeout == 5.0
    with pytest.raises(ValueError, match="retries"):
        before.changed({"retries": -1})


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("time_limit", "use run_timeout"),
        ("deadline", "use timeout"),
        ("max_retries", "use retries"),
        ("tenant", "use key"),
        ("colour", "there are: timeout, run_timeout, priority, key, max_concurrency"),
    ],
)
def test_a_word_that_is_no_job_option_is_answered_with_the_right_one(word, hint):
    with pytest.raises(TypeError, match=f"'{word}' is no job option; {hint}"):
        JobOptions().changed({word: 1})


def test_words_that_are_known_pass():
    options.refuse_unknown({"a": 1}, ("a", "b"), "option")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("4096 B", 4096),
        ("512MiB", 512 * 1024**2),
        ("512 mib", 512 * 1024**2),
        ("1.5GiB", 3 * 1024**3 // 2),
        ("2GB", 2 * 1000**3),
        ("3k", 3000),
        ("1 TiB", 1024**4),
    ],
)
def test_a_size_is_kept_in_bytes(given, kept):
    assert options.size("max_rss", given) == kept


@pytest.mark.parametrize(
    "given",
    [0, -1, True, 1.5, None, "", "much", "MiB", "5 XB", "-5 MB", "5ik", "0 B", "inf"],
)
def test_what_is_no_size_is_a_value_error(given):
    with pytest.raises(ValueError, match="max_rss takes bytes, or a text such as"):
        options.size("max_rss", given)


def test_recycling_is_checked_and_kept_in_seconds_and_bytes():
    assert Recycle() == Recycle(None, None, None, 0.1)
    given = Recycle(max_jobs=10, max_age=timedelta(hours=1), max_rss="1GiB", jitter=0)
    assert (given.max_jobs, given.max_age, given.max_rss) == (10, 3600.0, 1024**3)
    assert given.jitter == 0


@pytest.mark.parametrize(
    "words",
    [
        {"max_jobs": 0},
        {"max_age": 0},
        {"max_rss": "nothing"},
        {"jitter": 1},
        {"jitter": -0.1},
    ],
)
def test_recycling_out_of_range(words):
    with pytest.raises(ValueError, match=next(iter(words))):
        Recycle(**words)


def test_the_options_of_a_pool_are_frozen_in_their_final_form():
    made = PoolOptions(
        max_workers=3,
        max_pending=None,
        grace=timedelta(seconds=1),
        preload=["numpy"],
        initializer=print,
        initargs=[1, 2],
        threads_per_worker=None,
        env={"A": "1"},
    )
    assert (made.max_workers, made.max_pending, made.grace) == (3, None, 1.0)
    assert (made.preload, made.initargs) == (("numpy",), (1, 2))
    assert (made.threads_per_worker, made.env) == (None, {"A": "1"})
    assert made.job == JobOptions()


def test_a_pool_without_a_size_has_the_machines(monkeypatch):
    monkeypatch.setenv("OFFLOOP_MAX_WORKERS", "12")
    assert PoolOptions().max_workers == 12


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"max_workers": 1.5}, "max_workers takes a whole number"),
        ({"preload": "numpy"}, r"module names: preload=\['numpy'\]"),
        ({"initializer": 3}, "initializer must be callable, not 3"),
        ({"threads_per_worker": "1"}, "threads_per_worker takes a whole number"),
        ({"env": {"A": 1}}, "env maps str to str, not 'A' to 1"),
        ({"env": {1: "A"}}, "env maps str to str, not 1 to 'A'"),
    ],
)
def test_a_pool_option_of_a_wrong_type(words, match):
    with pytest.raises(TypeError, match=match):
        PoolOptions(**words)


@pytest.mark.parametrize("name", ["max_workers", "max_pending", "threads_per_worker"])
def test_a_pool_has_at_least_one_of_each(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        PoolOptions(**{name: 0})


@pytest.mark.parametrize("engine", [*options.ENGINES, "dask://host:8786"])
def test_an_engine_is_taken_as_given(monkeypatch, engine):
    monkeypatch.delenv("OFFLOOP_ENGINE", raising=False)
    assert chosen_engine(engine) == engine


def test_the_environment_overrides_the_engine(monkeypatch):
    monkeypatch.setenv("OFFLOOP_ENGINE", "inline")
    assert chosen_engine("local") == chosen_engine("thread") == "inline"
    monkeypatch.setenv("OFFLOOP_ENGINE", "shared")
    assert chosen_engine("local") == "shared"
    assert chosen_engine("thread") == "thread"  # its objects may not travel
    monkeypatch.setenv("OFFLOOP_ENGINE", "")
    assert chosen_engine("local") == "local"


def test_an_engine_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("OFFLOOP_ENGINE", "gevent")
    with pytest.raises(ValueError, match=r"engine is one of local, .*, not 'gevent'"):
        chosen_engine("local")


def test_a_key_is_anything_that_can_be_hashed():
    assert JobOptions(key=("tenant", 3)).key == ("tenant", 3)
    with pytest.raises(TypeError, match="what can be hashed"):
        JobOptions(key=[])


def test_limits_of_functions_and_of_bytes():
    assert JobOptions(max_concurrency=2).max_concurrency == 2
    with pytest.raises(ValueError, match="max_concurrency"):
        JobOptions(max_concurrency=0)
    assert PoolOptions(max_pending_bytes="1KiB").max_pending_bytes == 1024
    with pytest.raises(ValueError, match="max_pending_bytes"):
        PoolOptions(max_pending_bytes=0)
