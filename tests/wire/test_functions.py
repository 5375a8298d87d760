"""A function has one number while it stays the same, and is the same in the worker."""

import collections
import functools
import gc
import importlib
import math
import sys
import textwrap
import types
import weakref

import cloudpickle
import pytest

import jobs_wire
from jobs_wire import (
    AsyncScale,
    Model,
    Refuses,
    Remote,
    Scale,
    acount,
    add,
    count,
    loud,
    make_adder,
    noisy,
    twice,
    wait,
)
from offloop.errors import NotOffloadable
from offloop.wire import functions
from offloop.wire.functions import APPLY, FunctionCache, FunctionTable, OwnFunctions

GLOBAL = 1


@pytest.fixture
def table():
    return FunctionTable()


def there(function):
    """The function as a worker has it."""
    cache = FunctionCache()
    cache.learn(function.id, function.definition)
    return cache.get(function.id)


def run(table, fn, *args):
    """Call a function as a worker would."""
    function, args = table.prepare(fn, args)
    return there(function)(*args)


# By reference


@pytest.mark.parametrize(
    ("fn", "module", "name"),
    [
        (add, "jobs_wire", "jobs_wire.add"),
        (textwrap.dedent, "textwrap", "textwrap.dedent"),
        (Model.double, "jobs_wire", "jobs_wire.Model.double"),
        (Model.scale, "jobs_wire", "jobs_wire.Model.scale"),
        (Model, "jobs_wire", "jobs_wire.Model"),
        (math.sqrt, "math", "math.sqrt"),
        (len, "builtins", "len"),
        (dict, "builtins", "dict"),
    ],
)
def test_what_a_worker_can_import_goes_by_name(table, fn, module, name):
    function = table.name(fn)
    assert function.module == module
    assert function.name == name
    assert function.kind == "plain"
    assert function.extra is None
    assert there(function) is fn
    assert len(function.definition) < 100


@pytest.mark.parametrize("wrapper", [twice, Model.__dict__["decorated"], loud])
def test_the_function_under_offload_goes_by_the_name_of_its_wrapper(table, wrapper):
    raw = wrapper.__wrapped__
    function = table.name(raw)
    assert function.module == "jobs_wire"
    assert there(function) is raw


def test_offload_is_taken_off_and_other_decorators_are_not(table):
    assert table.name(twice) is table.name(twice.__wrapped__)
    assert run(table, twice, 4) == 8
    assert run(table, loud, 4) == ("noise", 4)


def test_a_function_that_another_one_replaced_under_its_name_goes_by_value(table):
    fake = types.FunctionType(add.__code__, {}, "add")
    fake.__module__ = "jobs_wire"
    function = table.name(fake)
    assert function.module is None
    assert there(function) is not add


def test_a_function_beneath_a_foreign_decorator_goes_by_value(table, monkeypatch):
    monkeypatch.setattr(jobs_wire, "forgetful", noisy(jobs_wire.forgetful))
    inner = jobs_wire.forgetful.__wrapped__
    assert table.name(inner).module is None
    assert run(table, inner, 3) == 3
    assert run(table, jobs_wire.forgetful, 3) == ("noise", 3)


def test_a_function_of_a_module_that_has_no_file_goes_by_value(table, monkeypatch):
    module = types.ModuleType("made_while_running")
    exec("base = 1\ndef plus(a): return a + base", vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    function = table.name(module.plus)
    assert function.module is None
    assert there(function)(1) == 2
    assert there(function) is not module.plus
    assert function.name.startswith("plus (<string>:")
    cloudpickle.unregister_pickle_by_value(module)


def test_a_function_of_a_module_that_is_not_loaded_goes_by_value(table):
    namespace = {"__name__": "never_imported"}
    exec("def plus(a): return a + 1", namespace)
    function = table.name(namespace["plus"])
    assert function.module is None
    assert there(function)(1) == 2


def test_a_module_that_the_user_registered_goes_by_value(table):
    cloudpickle.register_pickle_by_value(jobs_wire)
    try:
        assert table.name(add).module is None
        assert run(table, add, 1, 2) == 3
    finally:
        cloudpickle.unregister_pickle_by_value(jobs_wire)


def test_without_cloudpickle_nobody_registered_anything(table, monkeypatch):
    monkeypatch.delitem(sys.modules, "cloudpickle")
    assert table.name(add).module == "jobs_wire"


def test_a_function_that_was_loaded_anew_keeps_its_number(table, tmp_path, monkeypatch):
    (tmp_path / "wire_reloaded.py").write_text("def f(): return 1")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("wire_reloaded")
    before = module.f
    number = table.name(before)
    importlib.reload(module)
    assert module.f is not before
    assert table.name(module.f) is number
    monkeypatch.delitem(sys.modules, "wire_reloaded")


# By value; when it is the same: test_functions_that_change


@pytest.mark.parametrize(
    ("fn", "args", "result"),
    [
        (lambda a: a + 1, (1,), 2),
        (make_adder(3), (1,), 4),
        (noisy(add), (1, 2), ("noise", 3)),
        (lambda a: math.sqrt(a) + GLOBAL, (4,), 3.0),
        (lambda a: [GLOBAL + b for b in a], ([1, 2],), [2, 3]),
    ],
)
def test_what_no_worker_can_import_goes_by_value(table, fn, args, result):
    function = table.name(fn)
    assert function.module is None
    assert there(function)(*args) == result


def test_a_local_recursive_function(table):
    def factorial(n):
        return n * factorial(n - 1) if n else 1

    function = table.name(factorial)
    assert there(function)(5) == 120
    assert table.name(factorial) is function


def test_a_local_class_is_a_callable_too(table):
    class Local:
        def __init__(self, a):
            self.a = a

    function = table.name(Local)
    assert function.name == "Local" or function.name.endswith(".Local")
    assert type(there(function)(3)) is Local
    assert there(function)(3).a == 3


# By APPLY


@pytest.mark.parametrize(
    ("fn", "args", "result", "name", "kind"),
    [
        (Model(2).scale, (3,), 6, "jobs_wire.Model.scale", "plain"),
        (Model.make, (3,), Model(3), "jobs_wire.Model.make", "plain"),
        (functools.partial(add, b=2), (1,), 3, "jobs_wire.add", "plain"),
        (functools.partial(twice), (2,), 4, "jobs_wire.twice", "plain"),
        (Scale(2), (3,), 6, "jobs_wire.Scale object", "plain"),
        (jobs_wire.offloaded(Scale(2)), (3,), 6, None, "plain"),
        ("a".upper, (), "A", "str.upper", "plain"),
        (str.upper, ("a",), "A", "str.upper", "plain"),
        (dict.fromkeys, ("a",), {"a": None}, "dict.fromkeys", "plain"),
        (functools.partial(wait), (1,), None, "jobs_wire.wait", "async"),
        (AsyncScale(2), (1,), None, "jobs_wire.AsyncScale object", "async"),
        (types.MethodType(count, 3), (), None, "jobs_wire.count", "generator"),
    ],
)
def test_what_is_made_for_each_call_is_its_first_argument(
    table, fn, args, result, name, kind
):
    function, carried = table.prepare(fn, args)
    assert function.id == APPLY
    assert function.definition == b""
    assert function.module is None
    assert function.kind == kind
    assert name is None or function.name == name
    assert carried[1:] == args
    if result is not None:
        assert FunctionCache().get(APPLY)(*carried) == result


def test_a_partial_of_an_offloaded_function_runs_the_function_itself():
    partial = functools.partial(loud, 3)
    assert functions.apply(partial) == ("noise", 3)
    keyed = functools.partial(jobs_wire.offloaded(add), b=1)
    assert functions.apply(keyed, 1) == 2
    assert functions.apply(keyed, 1, b=5) == 6


def test_what_is_known_of_a_callable_stays_between_calls(table):
    first, _ = table.prepare(Model(1).scale, (1,))
    second, _ = table.prepare(Model(2).scale, (1,))
    other, _ = table.prepare(Scale(1), (1,))
    assert first is second
    assert first is not other


def test_callables_beyond_the_limit_start_anew():
    table = FunctionTable(limit=1)
    first = table.name(Model(1).scale)
    table.name(Scale(1))
    assert table.name(Model(1).scale) is not first


def test_prepare_leaves_the_arguments_of_named_functions_alone(table):
    args = (1, 2)
    function, carried = table.prepare(add, args)
    assert function is table.name(add)
    assert carried is args


# Kinds, names, refusals


@pytest.mark.parametrize(
    ("fn", "kind"),
    [
        (add, "plain"),
        (wait, "async"),
        (count, "generator"),
        (acount, "generator"),
        (types.coroutine(count), "generator"),
        (jobs_wire.offloaded(wait), "async"),
        (noisy(wait), "plain"),
    ],
)
def test_the_kind_is_that_of_the_function_that_runs(table, fn, kind):
    assert table.name(fn).kind == kind


def test_a_name_by_value_tells_the_place(table):
    fn = make_adder(1)
    line = fn.__code__.co_firstlineno
    assert table.name(fn).name == f"adder (jobs_wire.py:{line})"
    assert table.name(lambda: 1).name.startswith("<lambda> (test_functions.py:")


def test_a_function_without_a_module_has_a_name(table):
    fn = types.FunctionType(add.__code__, {})
    fn.__module__ = None
    assert table.name(fn).name.startswith("add (jobs_wire.py:")


def test_a_called_function_is_refused_with_advice(table):
    coroutine = wait(1)
    with pytest.raises(NotOffloadable, match=r"pass wait itself"):
        table.name(coroutine)
    coroutine.close()
    for made in (count(1), acount(1)):
        with pytest.raises(NotOffloadable, match=r"pass a?count itself"):
            table.name(made)


def test_what_is_no_function_is_refused(table):
    with pytest.raises(NotOffloadable, match=r"'text' \(of type str\) is none"):
        table.prepare("text", ())


def test_a_function_that_captured_what_cannot_travel_names_it(table):
    first, second, fine = Refuses(), Refuses(), 1

    def fn(a=first):
        return fine, second

    with pytest.raises(NotOffloadable, match="it stays here") as caught:
        table.name(fn)
    message = str(caught.value)
    assert message.startswith("fn (test_functions.py:")
    assert "'second' (of type Refuses), 'default value 1' (of type Refuses)" in message
    assert "'fine'" not in message
    assert isinstance(caught.value.__cause__, TypeError)


def test_a_class_that_holds_what_cannot_travel_is_refused(table):
    class Local:
        thing = Refuses()

    with pytest.raises(NotOffloadable, match="Local: it cannot be sent"):
        table.name(Local)


# Memory


def test_a_large_definition_is_warned_of_once(table):
    large, version = b"x" * functions.LARGE, 1

    def fn():
        return large, version

    with pytest.warns(RuntimeWarning, match=r"fn .* 1.0 MiB .* uses large, version"):
        table.name(fn)
    version = 2
    table.name(fn)  # a second warning would be an error here


def test_a_large_class_is_warned_of(table):
    class Local:
        large = b"x" * functions.LARGE

    with pytest.warns(RuntimeWarning, match="large values"):
        table.name(Local)


def test_the_least_recently_used_are_forgotten():
    table = FunctionTable(limit=2)
    first, second, third = make_adder(1), make_adder(2), make_adder(3)
    ids = [table.name(fn).id for fn in (first, second, first, third)]
    assert table.drain_forgotten() == [ids[1]]
    assert table.drain_forgotten() == []
    assert table.name(first).id == ids[0]


def test_a_forgotten_function_comes_back_under_a_new_number():
    table = FunctionTable(limit=1)
    fn, other = make_adder(1), make_adder(2)
    before = table.name(fn)
    before.extra = "known"
    table.name(other)
    after = table.name(fn)
    assert after.id not in {before.id, table.name(other).id}
    assert after.definition == before.definition
    assert after.extra == "known"


def test_importable_functions_are_never_forgotten():
    table = FunctionTable(limit=1)
    for fn in (add, wait, count, textwrap.dedent):
        table.name(fn)
    assert table.drain_forgotten() == []


def test_large_definitions_are_forgotten_before_they_fill_memory(table, monkeypatch):
    size = len(table.name(make_adder("x" * 1000)).definition)
    monkeypatch.setattr(functions, "KEPT_BYTES", 2 * size)
    table = FunctionTable()
    names = [table.name(make_adder(letter * 1000)) for letter in "abcd"]
    assert table.drain_forgotten() == [name.id for name in names[:-2]]
    table.name(make_adder("x" * 5000))
    assert table.drain_forgotten() == [name.id for name in names[-2:]]


def test_short_lived_functions_leave_nothing_behind():
    table = FunctionTable(limit=10)
    for n in range(100):
        table.name(make_adder(n))
    gc.collect()
    assert len(table.drain_forgotten()) == 90
    assert table._entries == {}


def test_the_table_keeps_no_recursive_function_alive(table):
    def named():
        def factorial(n):
            return n * factorial(n - 1) if n else 1

        table.name(factorial)
        return weakref.ref(factorial)

    ghost = named()
    gc.collect()
    assert ghost() is None


def test_a_new_function_in_the_place_of_a_dead_one_is_not_taken_for_it(table):
    fn = make_adder(1)
    entry_of = table._entries
    table.name(fn)
    (entry,) = entry_of.values()
    other = make_adder(2)
    entry_of[id(other)] = entry  # as if `other` had been given the memory of `fn`
    assert there(table.name(other))(1) == 3


# The worker's side


def test_an_unknown_number_is_a_lookup_error():
    with pytest.raises(LookupError, match="function 7"):
        FunctionCache().get(7)


def test_a_forgotten_number_is_unknown(table):
    cache, function = FunctionCache(), table.name(add)
    cache.learn(function.id, function.definition)
    cache.get(function.id)
    cache.forget([function.id, 99])
    with pytest.raises(LookupError):
        cache.get(function.id)


def test_a_function_is_decoded_once(table):
    cache, function = FunctionCache(), table.name(make_adder(1))
    cache.learn(function.id, function.definition)
    assert cache.get(function.id) is cache.get(function.id)


def test_imported_modules_are_told(tmp_path, monkeypatch):
    (tmp_path / "wire_fresh.py").write_text("def f(): return 1\ndef g(): return 2")
    monkeypatch.syspath_prepend(tmp_path)
    cache = FunctionCache()
    cache.learn(1, b"Rwire_fresh\0f")
    cache.learn(2, b"Rwire_fresh\0g")
    assert cache.imported == []
    assert (cache.get(1)(), cache.get(2)()) == (1, 2)
    assert cache.imported == ["wire_fresh"]
    monkeypatch.delitem(sys.modules, "wire_fresh")


def test_a_failed_import_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    cache = FunctionCache()
    cache.learn(1, b"Rwire_broken\0f")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError):
            cache.get(1)
    (tmp_path / "wire_broken.py").write_text("def f(): return 1")
    sys.path_importer_cache.clear()
    assert cache.get(1)() == 1
    monkeypatch.delitem(sys.modules, "wire_broken")


def test_a_function_that_the_module_lacks_here_is_named():
    cache = FunctionCache()
    cache.learn(1, b"Rjobs_wire\0no.such")
    with pytest.raises(AttributeError, match=r"jobs_wire .* has no function no.such"):
        cache.get(1)


def test_in_another_process():
    with Remote() as remote:
        assert remote.call(add, 1, b=2) == 3
        assert remote.call(math.sqrt, 4) == 2
        assert remote.call(Model(2).scale, 3) == 6
        assert remote.call(Model.make, 3) == Model(3)
        assert remote.call(twice, 3) == 6
        assert remote.call(functools.partial(twice, 3)) == 6
        assert remote.call(collections.Counter, "aa") == {"a": 2}
        assert remote.call(make_adder(2), 1) == 3
        assert remote.call(lambda: GLOBAL) == 1
        with pytest.raises(ZeroDivisionError):
            remote.call(divmod, 1, 0)


def test_what_stays_in_its_process_goes_by_its_name_and_captures_anything():
    own = OwnFunctions()
    made = [functools.partial(add, object())] + [lambda: object()] * 2
    (first, _), (second, args), (third, _) = (own.prepare(fn, (1,)) for fn in made)
    assert second is third
    assert args == (made[1], 1)
    assert (first.id, first.module, first.kind) == (APPLY, "jobs_wire", "plain")
    assert second.module == __name__
    function, (bound, *rest) = own.prepare(functools.partial(twice, 4), ())
    assert (function.name, bound(), rest) == ("jobs_wire.twice", 8, [])
    with pytest.raises(NotOffloadable, match="a function is needed"):
        own.prepare("none", ())
