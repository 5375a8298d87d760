"""Objects that are named by number: where they may be named, and who finds them."""

from __future__ import annotations

import pickle

import pytest

from offloop.wire import puts


class Reference:
    """As users hold one."""

    def __init__(self, stored):
        self.stored = stored

    def __reduce__(self):
        return puts.reduce(self.stored)


def find_text(number):
    return f"object {number}"


def stored(owner, number=7, tell=print):
    return puts.Stored(owner, number, "dict", tell)


@pytest.fixture
def resolver():
    puts.set_resolver(find_text)
    yield
    puts.set_resolver(None)


def test_a_call_names_what_it_uses_and_the_worker_finds_it(resolver):
    one, other = stored("mine"), stored("mine", 8)
    with puts.collecting("mine") as named:
        payload = pickle.dumps([Reference(one), {"deep": Reference(other)}])
    assert named == [one, other]
    assert pickle.loads(payload) == ["object 7", {"deep": "object 8"}]


def test_where_there_is_no_process_border_the_object_is_loaded(resolver):
    one = stored("mine")
    one.load = dict
    with puts.collecting("mine") as named:
        payload = pickle.dumps(Reference(one))
    assert named == [one]
    assert pickle.loads(payload) == {}


def test_it_can_be_named_in_calls_of_its_own_pool_only():
    one = stored("mine")
    with pytest.raises(TypeError, match=r"Ref to dict can only be .*pool"):
        pickle.dumps(Reference(one))
    with puts.collecting("other") as named, pytest.raises(TypeError, match="Ref to"):
        pickle.dumps(Reference(one))
    assert named == []


def test_calls_within_calls_note_their_own():
    one, other = stored("mine"), stored("other")
    with puts.collecting("mine") as outer:
        with puts.collecting("other") as inner:
            pickle.dumps(Reference(other))
        pickle.dumps(Reference(one))
    assert (outer, inner) == ([one], [other])


def test_the_last_reference_tells_that_it_goes():
    told = []
    one = stored("mine", 3, told.append)
    assert told == []
    del one
    assert told == [3]
