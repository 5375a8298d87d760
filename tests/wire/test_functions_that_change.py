"""A function by value is pickled anew when, and only when, it may have changed."""

import math

import pytest

import jobs_wire
from jobs_wire import Model, Scale, add, make_adder
from offloop.wire import functions
from offloop.wire.functions import FunctionCache, FunctionTable

GLOBAL = 1


@pytest.fixture
def table():
    return FunctionTable()


def there(function):
    """The function as a worker has it."""
    cache = FunctionCache()
    cache.learn(function.id, function.definition)
    return cache.get(function.id)


def test_the_same_function_has_the_same_number(table):
    fn = make_adder(1)
    assert table.name(fn) is table.name(fn)
    assert table.name(add) is table.name(add)


def test_another_function_of_the_same_content_has_the_same_number(table):
    assert table.name(make_adder(1)) is table.name(make_adder(1))
    assert table.name(make_adder(1)) is not table.name(make_adder(2))


def sensitive():
    """Functions of every sort, each with a way to change what it captured."""
    value = 1

    def closure():
        return value

    def change_closure():
        nonlocal value
        value += 1

    def default(a=1):
        return a

    def keyword(*, a=1):
        return a

    def attribute():
        return None

    def through_another():
        return closure()

    def container():
        return things

    things = [1]

    def late():
        return assigned_later

    def assign():
        nonlocal assigned_later
        assigned_later = 1

    def inner():
        return [GLOBAL for _ in range(1)] + [lambda: GLOBAL]

    class Plain:
        size = 1

        @property
        def area(self):
            return self.size

        @staticmethod
        def helper():
            return value

    def code():
        return 1

    def other_code():
        return 2

    if False:
        assigned_later = None
    return {
        "closure": (closure, change_closure),
        "default": (default, lambda: setattr(default, "__defaults__", (2,))),
        "keyword": (keyword, lambda: keyword.__kwdefaults__.update(a=2)),
        "attribute": (attribute, lambda: setattr(attribute, "mark", 1)),
        "another function": (through_another, change_closure),
        "container": (container, lambda: things.append(2)),
        "cell filled later": (late, assign),
        "global": (inner, lambda: globals().update(GLOBAL=2)),
        "class attribute": (Plain, lambda: setattr(Plain, "size", 2)),
        "class": (lambda: Plain, lambda: setattr(Plain, "size", 3)),
        "method of a class": (lambda: Plain().helper(), change_closure),
        "base class": (type("Sub", (Plain,), {}), lambda: setattr(Plain, "size", 4)),
        "code": (code, lambda: setattr(code, "__code__", other_code.__code__)),
    }


@pytest.mark.parametrize("what", sensitive())
def test_a_change_of_what_was_captured_makes_it_another_function(
    table, what, monkeypatch
):
    monkeypatch.setitem(globals(), "GLOBAL", 1)
    fn, change = sensitive()[what]
    before = table.name(fn)
    before.extra = "known"
    assert table.name(fn) is before
    change()
    after = table.name(fn)
    assert after.id != before.id
    assert after.definition != before.definition
    assert after.extra == "known"


def test_true_and_one_are_not_the_same(table):
    value = 1

    def fn():
        return value

    assert there(table.name(fn))() is not True
    value = True
    assert there(table.name(fn))() is True


class Counts:
    """Counts how often it is pickled."""

    pickled = 0

    def __reduce__(self):
        Counts.pickled += 1
        return int, ()


def test_what_cannot_change_unseen_is_pickled_once(table, monkeypatch):
    pickled = []
    plain = functions.by_value.dumps_by_value
    monkeypatch.setattr(
        functions.by_value,
        "dumps_by_value",
        lambda fn: pickled.append(fn) or plain(fn),
    )
    atoms = 1, 2.0, "a", (None, (True, frozenset({b"x"})))

    @jobs_wire.offloaded
    def face(n):
        return face(n - 1) if n else GLOBAL

    def fn(a=GLOBAL):
        return atoms, math, len, add, Model, make_adder, dict, face, a

    for _ in range(3):
        table.name(fn)
    assert pickled == [fn]


def test_what_may_change_unseen_is_pickled_at_each_call(table):
    counts = Counts()
    fn = lambda: counts  # noqa: E731 - it is about functions without a name
    before = Counts.pickled
    assert table.name(fn) is table.name(fn)
    assert Counts.pickled == before + 2


def test_a_class_of_a_metaclass_may_change_unseen(table):
    class Meta(type):
        pass

    class Local(metaclass=Meta):
        things = 1

    before = table.name(Local)
    Local.things = 2
    assert table.name(Local) is not before


def test_an_offloaded_object_may_change_unseen(table):
    scale = Scale(1)
    face = jobs_wire.offloaded(scale)

    def fn(a):
        return face.__wrapped__(a)

    before = table.name(fn)
    scale.factor = 2
    assert there(table.name(fn))(3) == 6
    assert table.name(fn) is not before


def test_a_bound_builtin_may_change_unseen(table):
    things = [1]
    push = things.append

    def fn():
        return push

    before = table.name(fn)
    things.append(2)
    assert table.name(fn) is not before
