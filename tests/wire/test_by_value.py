"""What only a script knows works in a worker as if the script were a module."""

import json
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import cloudpickle
import pytest

import jobs_wire
from offloop.wire import by_value

TESTS = Path(jobs_wire.__file__).parent

SCRIPT = """
import enum
import json
import math

from jobs_wire import Remote, offloaded

model = None
cache = {}
factor = 2


def load(value):
    global model, late
    model = value
    late = value
    cache["loaded"] = value


def use():
    return [model, late, cache["loaded"]]


def scaled(a):
    return math.sqrt(a) * factor


def other(a):
    return -a


def by_other(a):
    return other(a)


class Point:
    made = 0

    def __init__(self, x):
        self.x = x

    def moved(self):
        return Point(self.x + factor)

    def cached(self):
        return cache


class Colour(enum.Enum):
    RED = 1


class Trouble(Exception):
    def __init__(self, code, reason):
        super().__init__(f"{reason} {code}")
        self.code = code

    def hint(self):
        return factor


def is_point(value):
    return isinstance(value, Point)


def make_point(x):
    return Point(x)


def count_points():
    Point.made += 1
    return Point.made


def fail(code):
    raise Trouble(code, "broken")


def factorial(n):
    return n * factorial(n - 1) if n else 1


@offloaded
def fibonacci(n):
    inner = fibonacci.__wrapped__
    return inner(n - 1) + inner(n - 2) if n > 1 else n


def apply(fn, a):
    return fn(a)


def later():
    return lambda: factor


told = {}
with Remote() as remote:
    call = remote.call
    call(load, 7)
    told["initializer"] = call(use)
    told["global"] = [call(scaled, 4)]
    factor = 3
    told["global"].append(call(scaled, 4))
    told["helper"] = [call(by_other, 1)]

    def other(a):
        return 10 * a

    told["helper"].append(call(by_other, 1))
    told["recursion"] = call(factorial, 5)
    told["offloaded"] = call(fibonacci, 10)
    told["lambda argument"] = call(apply, lambda a: a * factor, 3)

    methods = Point.moved, Point.cached
    point = Point(1)
    told["sent instance"] = call(is_point, point)
    made = call(make_point, 4)
    told["returned instance"] = type(made) is Point and made.x == 4
    told["bound method"] = type(call(point.moved)) is Point
    told["methods stay"] = methods == (Point.moved, Point.cached)
    told["methods see globals"] = made.cached() is cache
    told["class state"] = [call(count_points), call(count_points)]
    told["class state here"] = Point.made
    Point.made = 10
    told["class state sent"] = [call(lambda point: point.made, point)]
    told["enum"] = call(lambda colour: colour is Colour.RED, Colour.RED)
    told["enum back"] = call(lambda: Colour.RED) is Colour.RED
    try:
        call(fail, 5)
    except Trouble as error:
        told["error"] = [str(error), error.code, error.hint()]
    inner = call(later)
    factor = 4
    told["returned lambda"] = inner()
print(json.dumps(told))
"""


def run(*command, **keywords):
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    output = subprocess.check_output(
        [sys.executable, *command], env=environment, text=True, **keywords
    )
    return json.loads(output)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What SCRIPT found, with itself as `__main__` and a worker beside it."""
    script = tmp_path_factory.mktemp("script") / "script.py"
    script.write_text(SCRIPT)
    return run(str(script))


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("initializer", [7, 7, 7]),
        ("global", [4.0, 6.0]),
        ("helper", [-1, 10]),
        ("recursion", 120),
        ("offloaded", 55),
        ("lambda argument", 9),
        ("sent instance", True),
        ("returned instance", True),
        ("bound method", True),
        ("methods stay", True),
        ("methods see globals", True),
        ("class state", [1, 2]),
        ("class state here", 0),
        ("class state sent", [10]),
        ("enum", True),
        ("enum back", True),
        ("error", ["broken 5", 5, 3]),
        ("returned lambda", 3),
    ],
)
def test_in_a_script(told, what, expected):
    assert told[what] == expected


def test_without_a_file_as_in_a_console():
    source = (
        "import json\nfrom jobs_wire import Remote\n"
        "scale = 3\n"
        "def triple(a): return scale * a\n"
        "with Remote() as remote: print(json.dumps(remote.call(triple, 2)))"
    )
    assert run("-c", source) == 6
    assert run("-", input=source) == 6


# In one process


def copy(obj, **options):
    return pickle.loads(by_value.dumps_by_value(obj, **options))


@pytest.fixture
def script():
    """A module that no other process could import."""
    module = types.ModuleType("made_while_running")
    source = (
        "value = 1\ndef get():\n return value\ndef put(a):\n global value\n value = a"
    )
    exec(source, vars(module))
    sys.modules[module.__name__] = module
    yield module
    del sys.modules[module.__name__]
    if module.__name__ in cloudpickle.list_registry_pickle_by_value():
        cloudpickle.unregister_pickle_by_value(module)


@pytest.mark.parametrize("name", ["__main__", "made_while_running"])
def test_a_script_is_what_nobody_else_can_import(script, name):
    assert by_value.script_module(name) is sys.modules[name]


@pytest.mark.parametrize("name", ["json", "jobs_wire", "no_such_module", None])
def test_a_module_with_a_file_is_no_script(name):
    assert by_value.script_module(name) is None


def test_functions_of_a_script_share_their_globals(script):
    get, put = copy(script.get), copy(script.put)
    put(5)
    assert get() == 5
    assert script.value == 1


def test_a_global_that_did_not_change_here_is_not_overwritten_there(script):
    copy(script.put)(5)
    assert copy(script.get)() == 5


def test_a_global_that_changed_here_is_overwritten_there(script):
    copy(script.put)(5)
    script.value = 2
    assert copy(script.get)() == 2


@pytest.mark.parametrize("value", [jobs_wire.Model, lambda: 3, [lambda: 3], "__main__"])
def test_a_global_whose_change_cannot_be_seen_is_overwritten(script, value):
    script.value = value
    copy(script.put)(5)
    assert copy(script.get)() != 5


def test_what_a_worker_returns_shares_nothing(script):
    get, put = copy(script.get, shared=False), copy(script.put, shared=False)
    put(5)
    assert get() == 1


def test_a_function_of_a_module_with_a_file_keeps_its_globals_to_itself():
    adder = copy(jobs_wire.make_adder(1))
    assert adder.__globals__ is not copy(jobs_wire.make_adder(1)).__globals__
    assert adder(1) == 2


def test_code_keeps_the_name_of_its_file():
    def outer():
        return lambda: None

    copy = pickle.loads(by_value.dumps_by_value(outer))
    assert copy.__code__.co_filename == copy().__code__.co_filename == __file__
    assert copy.__code__ == outer.__code__


def test_in_band_takes_the_quick_way_when_it_can():
    assert by_value.in_band((1, 2)) == pickle.dumps((1, 2), 5)


def test_in_band_keeps_large_buffers():
    large = bytearray(100_000)
    assert pickle.loads(by_value.in_band(large)) == large
    assert pickle.loads(by_value.in_band([large, lambda: 1]))[0] == large


def test_the_class_of_a_returning_instance_stays_as_it_is():
    class Local:
        def method(self):
            return 1

    method = Local.method
    assert type(copy(Local())) is Local
    assert Local.method is method


def test_a_class_that_is_gone_is_built_again():
    def encode():
        class Local:
            def method(self):
                return 1

        return by_value.dumps_by_value(Local())

    assert pickle.loads(encode()).method() == 1


def test_a_trial_gives_the_payload_and_a_copy():
    payload, received = by_value.trial([1, 2])
    assert received == pickle.loads(payload) == [1, 2]


@pytest.mark.parametrize("error", [TypeError("no"), RecursionError()])
def test_a_trial_of_what_cannot_travel(error):
    assert by_value.trial(jobs_wire.Refuses(error)) is None


def test_a_trial_leaves_a_class_that_came_from_elsewhere_alone():
    code = (
        "import sys, jobs_wire\nfrom offloop.wire import by_value\n"
        "class Foreign:\n def method(self): return 1\n"
        "sys.stdout.buffer.write(by_value.dumps_by_value(Foreign()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    command = [sys.executable, "-c", code]
    foreign = pickle.loads(subprocess.check_output(command, env=environment))
    method = type(foreign).method
    _, received = by_value.trial(foreign)
    assert type(received) is type(foreign)
    assert type(foreign).method is method
    assert received.method() == 1
