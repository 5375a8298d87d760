"""Every exception arrives as itself, or as the next best thing; none gets lost."""

import asyncio
import pickle
import threading
import traceback

import cloudpickle
import pytest

import jobs_wire
from offloop.errors import (
    ControlFlowError,
    JobTimeout,
    RemoteError,
    RemoteTraceback,
)
from offloop.wire import failures
from offloop.wire.failures import decode_error, deliverable, encode_error


def raised(error, cause=None):
    """The exception with a traceback, as a worker catches it."""
    try:
        if cause is not None:
            raise error from cause
        raise error
    except BaseException as caught:
        return caught


def through(error):
    return decode_error(encode_error(error, job_id=7, function="app.thumbnail"))


class Plain(Exception):
    """Nothing special."""


class Odd(Exception):
    """Pickles well, and fails to load: the constructor takes something else."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")
        self.code = code


class Growing(Exception):
    """Loads, but says something else afterwards."""

    def __init__(self, code):
        super().__init__(f"code {code}")


class Slotted(Exception):
    """Keeps a value where pickle does not look."""

    __slots__ = ("code", "unset")

    def __init__(self, code):
        super().__init__(code)
        self.code = code


class Stubborn(Exception):
    """Refuses that anything be set."""

    def __setattr__(self, name, value):
        raise AttributeError(name)


class OddFile(OSError):
    """An OSError with a constructor of its own."""

    def __init__(self, *, path):
        super().__init__(2, "gone", path)


class Loud(Exception):
    """Whatever is asked of it ends the program."""

    def __str__(self):
        raise SystemExit("str")

    __repr__ = __str__

    def __reduce__(self):
        raise SystemExit("reduce")


class Transformed(Exception):
    """Becomes another exception by pickling."""

    def __reduce__(self):
        return ValueError, ("not me",)


class Group(ExceptionGroup):
    """A group with a field."""

    def derive(self, members):
        return Group(self.message, members)


@pytest.mark.parametrize(
    "error",
    [
        Plain("a", 1),
        KeyError("key"),
        Odd(code=5),
        Growing(5),
        OSError(2, "gone", "file.txt"),
        OddFile(path="file.txt"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        ImportError("no", name="numpy", path="here"),
        JobTimeout("late", limit=5, kind="run_timeout"),
        Slotted(5),
        Stubborn("no"),
        Transformed("me"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_arrives_as_itself(error):
    received = through(raised(error))
    assert type(received) is type(error)
    assert str(received) == str(error)
    assert received.args == error.args
    assert vars(received) == vars(error)
    assert failures._fields(received) == failures._fields(error)


def test_notes_and_attributes_arrive():
    error = Plain("a")
    error.add_note("note")
    error.field = [1]
    received = through(error)
    assert received.__notes__ == ["note"]
    assert received.field == [1]


def test_a_local_exception_class_is_the_same_class_at_home():
    class Local(Exception):
        pass

    received = through(Local("a"))
    assert type(received) is Local
    assert received.args == ("a",)


@pytest.mark.parametrize("build", [Plain, lambda *args: Odd(code=args)])
def test_what_cannot_travel_is_replaced_by_its_repr(build):
    error = build("a", 1)
    error.lock = threading.Lock()
    error.fine = 2
    received = through(error)
    assert type(received) is type(error)
    assert received.args == error.args
    assert received.lock.startswith("<unlocked _thread.lock")
    assert received.fine == 2


def test_an_argument_that_cannot_travel_is_replaced_by_its_repr():
    received = through(Plain("a", threading.Lock()))
    assert received.args[0] == "a"
    assert "lock" in received.args[1]


def test_an_object_that_an_attribute_error_was_about_stays_behind():
    owner = b"x" * 1_000_000
    try:
        owner.nothing  # noqa: B018
    except AttributeError as error:
        data = encode_error(error, job_id=1, function="f")
    assert len(data) < 10_000
    assert decode_error(data).name == "nothing"


def unsendable():
    class Bound(Exception):
        lock = threading.Lock()

    return Bound("me")


def test_an_exception_that_cannot_travel_becomes_a_remote_error():
    received = through(raised(unsendable()))
    assert type(received) is RemoteError
    assert str(received).startswith("app.thumbnail raised ")
    assert str(received).endswith("Bound: me")
    assert received.type_name.endswith("Bound")
    assert received.job_id == 7
    assert received.function == "app.thumbnail"
    assert "raise error" in received.remote_traceback


def test_the_message_of_a_remote_error_has_a_limit():
    error = unsendable()
    error.args = ("x" * 1_000_000,)
    assert len(encode_error(error, job_id=1, function="f")) < 100_000


def test_an_exception_whose_class_is_missing_here_becomes_a_remote_error(monkeypatch):
    class Fleeting(Exception):
        pass

    Fleeting.__module__, Fleeting.__qualname__ = "jobs_wire", "Fleeting"
    monkeypatch.setattr(jobs_wire, "Fleeting", Fleeting, raising=False)
    data = encode_error(Fleeting("a"), job_id=1, function="f")
    monkeypatch.delattr(jobs_wire, "Fleeting")
    received = decode_error(data)
    assert type(received) is RemoteError
    assert str(received) == "f raised jobs_wire.Fleeting: a"
    assert "cannot be loaded here" in received.__notes__[0]


def test_an_exception_that_ends_all_that_touch_it_becomes_a_remote_error():
    received = through(Loud())
    assert type(received) is RemoteError
    assert "Loud whose text fails with SystemExit" in str(received)
    assert "no traceback: SystemExit" in received.remote_traceback


# Causes, contexts, groups


def test_the_traceback_of_the_worker_is_the_cause():
    received = through(raised(Plain("a")))
    cause = received.__cause__
    assert type(cause) is RemoteTraceback
    assert cause.text.startswith("Traceback (most recent call last):")
    assert cause.text.endswith("Plain: a\n")
    printed = "".join(traceback.format_exception(received))
    assert "raise error" in printed
    assert received.__suppress_context__ is False


def test_a_cause_arrives_and_the_traceback_follows_it():
    received = through(raised(Plain("a"), cause=Odd(code=5)))
    assert type(received.__cause__) is Odd
    assert type(received.__cause__.__cause__) is RemoteTraceback
    assert received.__suppress_context__ is True


def test_a_context_arrives():
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise Plain("second")  # noqa: B904 - the context is what is tested
    except Plain as error:
        received = through(error)
    assert type(received.__context__) is KeyError
    assert type(received.__cause__) is RemoteTraceback
    assert "KeyError: 'first'" in received.__cause__.text


def test_a_suppressed_context_stays_suppressed():
    error = Plain("a")
    error.__context__ = KeyError("hidden")
    error.__suppress_context__ = True
    assert through(error).__suppress_context__ is True


def test_a_cause_that_cannot_travel_does_not_spoil_the_rest():
    received = through(raised(Plain("a"), cause=unsendable()))
    assert type(received) is Plain
    assert type(received.__cause__) is RemoteError


def test_a_circle_of_causes_is_cut():
    first, second = Plain(1), Plain(2)
    first.__cause__, second.__cause__ = second, first
    received = through(first)
    assert received.__cause__.args == (2,)
    assert type(received.__cause__.__cause__) is RemoteTraceback


def test_a_very_long_chain_is_cut():
    error = Plain(0)
    for n in range(3000):
        error = raised(Plain(n), cause=error)
    received, length = through(error), 0
    while type(received) is Plain:
        received, length = received.__cause__, length + 1
    assert length == failures.CHAIN + 1
    assert type(received) is RemoteTraceback


def test_a_group_arrives_with_its_members():
    group = ExceptionGroup("both", [Odd(code=1), ExceptionGroup("in", [KeyError(2)])])
    group.add_note("note")
    received = through(raised(group))
    assert type(received) is ExceptionGroup
    assert received.message == "both"
    assert received.__notes__ == ["note"]
    first, second = received.exceptions
    assert (type(first), first.code) == (Odd, 1)
    assert second.exceptions[0].args == (2,)
    assert first.__cause__ is None


def test_a_group_of_a_class_of_its_own():
    group = Group("all", [Plain("a")])
    group.lock = threading.Lock()
    received = through(group)
    assert type(received) is Group
    assert "lock" in received.lock


def test_one_exception_twice_in_a_group_arrives_once():
    error = Plain("a")
    received = through(ExceptionGroup("same", [error, error]))
    assert len(received.exceptions) == 1


def test_a_group_whose_class_is_missing_here_is_a_plain_group(monkeypatch):
    class Local(ExceptionGroup):
        pass

    Local.__module__, Local.__qualname__ = "jobs_wire", "Local"
    monkeypatch.setattr(jobs_wire, "Local", Local, raising=False)
    data = encode_error(Local("all", [Plain("a")]), job_id=1, function="f")
    monkeypatch.delattr(jobs_wire, "Local")
    received = decode_error(data)
    assert type(received) is ExceptionGroup
    assert "jobs_wire.Local: all" in received.message
    assert type(received.exceptions[0]) is Plain


# What must not be raised in the caller's loop


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        StopIteration(4),
        StopAsyncIteration(),
        BaseExceptionGroup("bad", [SystemExit(3)]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_would_end_or_confuse_the_loop_is_a_cause(error):
    received = through(raised(error))
    assert type(received) is ControlFlowError
    assert received.type_name.endswith(type(error).__name__)
    assert type(received.__cause__) is type(error)
    assert type(received.__cause__.__cause__) is RemoteTraceback


# The text


def test_our_own_frames_are_cut_off_the_beginning(tmp_path):
    source = "def run(fn):\n    fn()\n"
    ours = {}
    exec(compile(source, failures._OURS[0] + ".py", "exec"), ours)

    def job():
        ours["run"](lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError) as caught:
        ours["run"](job)
    error = caught.value.with_traceback(caught.tb.tb_next)
    text = through(error).__cause__.text
    first, *rest = [line for line in text.splitlines() if line.startswith("  File")]
    assert first.endswith("in job")
    assert rest[0].endswith("in run")  # ours again, but called by the job


def test_the_frames_of_the_loop_that_runs_a_coroutine_are_cut_off():
    async def job():
        raise Plain("a")

    with pytest.raises(Plain) as caught:
        asyncio.run(job())
    text = through(caught.value.with_traceback(caught.tb.tb_next)).__cause__.text
    first = next(line for line in text.splitlines() if line.startswith("  File"))
    assert first.endswith("in job")


def test_an_exception_that_was_never_raised_has_a_text():
    assert through(Plain("a")).__cause__.text.endswith("Plain: a\n")


def test_a_long_text_keeps_its_beginning_and_its_end():
    text = through(raised(Plain("x" * 100_000 + "end"))).__cause__.text
    assert len(text) < failures.TEXT_HEAD + failures.TEXT_TAIL + 100
    assert text.startswith("Traceback")
    assert "cut here" in text
    assert text.endswith("end\n")


@pytest.mark.parametrize("data", [b"", b"nonsense", pickle.dumps(1), pickle.dumps(())])
def test_bytes_that_are_no_error_are_an_error(data):
    received = decode_error(data)
    assert type(received) is RemoteError
    assert "cannot be read" in str(received)
    assert received.__cause__ is not None


def test_an_error_by_value_is_loaded_without_its_class_at_hand():
    namespace = {"__name__": "__main__"}
    exec("class Trouble(Exception): pass", namespace)
    data = encode_error(namespace["Trouble"]("a"), job_id=1, function="f")
    assert str(decode_error(data)) == "a"
    assert b"cloudpickle" in data
    assert cloudpickle.__name__ not in failures.__dict__


@pytest.mark.parametrize("steers", [StopIteration(1), SystemExit(3)])
def test_what_stays_in_its_process_is_itself_but_for_what_steers_a_loop(steers):
    error = raised(Odd(code=5))
    assert deliverable(error, job_id=7, function="app.thumbnail") is error
    assert error.__traceback__.tb_frame.f_code.co_name == "raised"
    stand_in = deliverable(raised(steers), job_id=7, function="app.thumbnail")
    assert type(stand_in) is ControlFlowError
    assert (stand_in.job_id, stand_in.function) == (7, "app.thumbnail")
