"""The tree of errors: what it looks like, and that it survives a process border."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest

from offloop import errors

#: every public exception, with its fields if it has some
STORY = "job 7 is FAILED"
JOB = {"job_id": 7, "function": "app.thumbnail", "story": STORY}

FIELDS = {
    "ControlFlowError": {
        **JOB,
        "type_name": "builtins.SystemExit",
        "remote_traceback": "Traceback",
    },
    "InternalError": {},
    "JobError": JOB,
    "JobInterrupted": {},
    "JobTimeout": {
        **JOB,
        "limit": 0.5,
        "kind": "run_timeout",
        "where": "line 3",
        "worker": 2,
        "pid": 4711,
        "peak_rss": 1 << 20,
        "output": "half way",
    },
    "MemoryLimitExceeded": JOB,
    "NotOffloadable": {},
    "OffloopError": {},
    "PoisonJob": JOB,
    "Quarantined": {**JOB, "retry_after": 4.5},
    "PoolClosed": {},
    "PoolFull": {"pending": 3, "limit": 2, "retry_after": 1.5, "never": True},
    "PoolLost": {},
    "RemoteError": {
        **JOB,
        "type_name": "app.Odd",
        "remote_traceback": "Traceback",
    },
    "RemoteTraceback": {},
    "ResultNotEncodable": JOB,
    "StartError": {"output": "no such module"},
    "UsageError": {},
    "WorkerLost": {
        **JOB,
        "worker": 2,
        "pid": 4711,
        "exitcode": None,
        "signal": "SIGKILL",
        "peak_rss": 1 << 20,
        "output": "Fatal Python error",
        "reason": "crashed",
        "where": "Fatal Python error",
    },
    "WrongLoop": {},
}

_DRAWN = re.compile(r"^    ([│ ]*[├└]── )?(\w+)(?: +\((\w+)\))?")


def drawn_tree():
    """Return (name, parent, built-in base or None) for each line of the drawing."""
    above = ["Exception"]
    found = []
    for line in errors.__doc__.split("\n\n")[1].splitlines():
        branch, name, also = _DRAWN.match(line).groups()
        depth = len(branch or "") // 4
        del above[depth + 1 :]
        found.append((name, above[-1], also))
        above.append(name)
    return found


@pytest.mark.parametrize(("name", "parent", "also"), drawn_tree())
def test_the_drawing_shows_the_bases(name, parent, also):
    bases = [base.__name__ for base in getattr(errors, name).__bases__]
    assert bases == [parent, also] if also else [parent]


def test_the_drawing_shows_every_error_that_offloop_raises_by_itself():
    drawn = {name for name, _, _ in drawn_tree()}
    own = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.OffloopError)
    }
    assert drawn == own


def test_every_exception_of_the_module_is_public_and_tried_here():
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert defined == set(errors.__all__) == set(FIELDS)


def pickled(error):
    return pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize("name", sorted(FIELDS.keys() - {"JobInterrupted"}))
def test_every_field_is_tried_here(name):
    signature = inspect.signature(getattr(errors, name))
    fields = {p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY}
    if name == "InternalError":
        fields.remove("story")  # it goes into the message
    assert fields == set(FIELDS[name])


@pytest.mark.parametrize("duplicate", [copy.copy, pickled])
@pytest.mark.parametrize(("name", "fields"), FIELDS.items())
def test_a_copy_has_the_message_and_all_fields(name, fields, duplicate):
    error = getattr(errors, name)("what happened", **fields)
    error.add_note("seen on Monday")
    twin = duplicate(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.args == error.args
    assert vars(twin) == vars(error)
    assert fields.items() <= vars(twin).items()
    assert twin.__notes__ == ["seen on Monday"]


@pytest.mark.parametrize("name", FIELDS)
def test_a_built_in_base_catches_it_too(name):
    kind = getattr(errors, name)
    for base in kind.__bases__:
        if base.__module__ == "builtins":
            with pytest.raises(base):
                raise kind("what happened")


def test_an_error_without_a_message_survives_as_well():
    error = errors.PoolFull(pending=3)
    error.args = ()  # a subclass may do so
    twin = pickled(error)
    assert (str(twin), twin.pending) == ("", 3)


def test_an_internal_error_shows_its_story_once():
    error = errors.InternalError("impossible", story="0.000 queued; 0.100 sent")
    twin = pickled(error)
    assert str(twin) == "impossible\nstory: 0.000 queued; 0.100 sent"
    assert twin.story == "0.000 queued; 0.100 sent"
    assert str(errors.InternalError("impossible")) == "impossible"


def test_the_remote_traceback_stands_out_where_it_is_shown():
    assert (
        str(errors.RemoteTraceback("line 1\nline 2\n")) == '\n"""\nline 1\nline 2\n"""'
    )


def test_a_request_to_stop_is_not_swallowed_by_except_exception():
    assert not issubclass(errors.JobInterrupted, Exception)
