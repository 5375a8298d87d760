"""Large bytes and texts inside of containers go beside the pickle, and come back."""

from __future__ import annotations

import pickle
from collections import deque
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jobs_payloads as payloads
from offloop import Pool
from offloop.wire import beside, bulk, codec
from offloop.wire.beside import LONG, Beside, has_long_text

SIZES = st.sampled_from([0, 5, 70_000, LONG - 1, LONG, LONG + 7, 600_000])
SEED = np.random.default_rng(3).integers(0, 256, 700_000, "u1").tobytes()


def text(size, letter):
    return (letter + "word ") * (size // 5)


@dataclass
class Holder:
    content: object


LEAVES = st.one_of(
    st.integers(),
    st.builds(lambda size: SEED[:size], SIZES),
    st.builds(lambda size: bytearray(SEED[:size]), SIZES),
    st.builds(text, SIZES, st.sampled_from("aäあ🙂\ud800")),
    st.builds(lambda size: memoryview(SEED[:size]), SIZES),
    st.builds(lambda size: np.frombuffer(SEED[: size // 8 * 8]), SIZES),
)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
        st.lists(inner, max_size=3).map(deque),
        st.builds(Holder, inner),
        inner.map(lambda one: [one, (one, {"again": one})]),
    ),
    max_leaves=12,
)


def same(one, other, known):
    """Tell whether two trees are equal, in type, content and in what is one object."""
    if id(one) in known and not isinstance(one, (int, str, tuple, memoryview)):
        return known[id(one)] is other
    known[id(one)] = other
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple, deque)):
        pairs = zip(one, other, strict=True)
        return all(same(a, b, known) for a, b in pairs)
    if isinstance(one, dict):
        return list(one) == list(other) and all(
            same(one[name], other[name], known) for name in one
        )
    if isinstance(one, Holder):
        return same(one.content, other.content, known)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other, equal_nan=True)
    return one == other


def arrived(encoded):
    """Return what a reader gets who has copies of the buffers."""
    payload, buffers = encoded
    return codec.decode(payload, [bytearray(buffer) for buffer in buffers])


@given(TREES)
@settings(max_examples=60, deadline=None)
def test_trees_arrive_as_they_were(tree):
    payload, buffers = codec.encode(tree, describe="it", slowly=True)
    assert (
        len(payload) < 64 * 1024 + 12 * LONG
    )  # each leaf is shorter than that, or out
    assert same(tree, arrived((payload, buffers)), {})
    assert same(tree, bulk.load_slowly(payload, buffers), {})
    result = codec.encode_result(tree, "it")
    if type(result[0]) is not tuple:
        assert same(tree, arrived(result), {})


def test_what_is_long_is_not_in_the_pickle_and_not_copied():
    data, mutable = SEED, bytearray(SEED)
    letters = text(LONG, "a")
    payload, buffers = codec.encode(
        {"deep": [data, (mutable, Holder(letters))]}, describe="it", slowly=True
    )
    assert len(payload) < 1000
    sources = [np.frombuffer(one, "u1") for one in (data, mutable)]
    first, second, third = (np.frombuffer(buffer, "u1") for buffer in buffers)
    assert np.shares_memory(first, sources[0])
    assert np.shares_memory(second, sources[1])
    assert np.shares_memory(third, np.frombuffer(bulk.text_buffer(letters), "u1"))


def test_long_bytes_need_no_thread_and_long_texts_do():
    payload, buffers = codec.encode_call(([{"deep": SEED}],), {}, "it")
    assert len(payload) < 1000
    assert len(buffers) == 1
    with pytest.raises(codec.Bulky):
        codec.encode_call(([{"deep": text(LONG, "a")}],), {}, "it")


def test_one_object_that_is_named_twice_is_one_object_there():
    letters = text(LONG, "ä")
    mutable = bytearray(SEED)
    sent = [SEED, mutable, letters, {"again": [SEED, mutable, letters]}]
    encoded = codec.encode(sent, describe="it", slowly=True)
    assert len(encoded[1]) == 3
    *first, second = arrived(encoded)
    assert all(a is b for a, b in zip(first, second["again"], strict=True))


def test_with_small_and_large_arrays_as_well():
    sent = [np.arange(5), SEED, np.arange(100_000), text(LONG, "a")]
    assert same(sent, arrived(codec.encode(sent, describe="it", slowly=True)), {})
    sent.pop()
    assert same(sent, arrived(codec.encode(sent, describe="it")), {})
    assert same(sent, arrived(codec.encode_result(sent, "it")), {})


def test_what_goes_by_value_has_its_bytes_beside_as_well():
    pytest.importorskip("cloudpickle")
    factor = 3
    sent = [lambda number: number * factor, SEED, text(LONG, "a")]
    payload, buffers = codec.encode(sent, describe="it", slowly=True)
    assert len(payload) < 10_000
    function, *rest = arrived((payload, buffers))
    assert function(2) == 6
    assert rest == sent[1:]
    payload, buffers = codec.encode([sent[0], [5]], describe="it")
    assert not buffers
    assert arrived((payload, buffers))[1] == [5]


def test_many_parts_must_be_longer():
    one = bytes(LONG)
    taken = Beside()
    count = sum(taken.take(one, 0) for _ in range(300))
    assert count == 256
    assert taken.take(bytes(2 * LONG), 0)
    few = Beside()
    sent = [bytes([number % 256]) * LONG for number in range(258)]
    rest = bulk.dump_slowly(sent, beside=few)
    payload, buffers = few.join(rest, [], slowly=True)
    assert len(buffers) == 256
    assert pickle.loads(payload, buffers=buffers) == sent


@pytest.mark.parametrize("beyond", [False, True])
def test_a_text_is_looked_for_where_it_may_be(beyond):
    long = text(2 * LONG, "a")
    hidden = [0] * beside._LOOKS + [long] if beyond else [0, long]
    for sent in (hidden, tuple(hidden), {"a": hidden}, Holder(hidden), [{"b": hidden}]):
        assert has_long_text(sent) is not beyond
        assert same(sent, arrived(codec.encode(sent, describe="it", slowly=True)), {})


def test_a_long_number_may_fill_a_frame():
    sent = [SEED, 3 ** (LONG * 8), SEED[:LONG]]
    assert arrived(codec.encode(sent, describe="it", slowly=True)) == sent


@pytest.mark.parametrize("engine", ["local", "inline"])
async def test_both_ways_and_put(engine):
    sent = {"data": SEED, "list": [bytearray(SEED), text(LONG, "ä"), SEED]}
    async with Pool(1, engine=engine) as pool:
        back = await pool.run(payloads.same, sent)
        assert same(sent, back, {})
        assert back["data"] is back["list"][2]
        back = await pool.run(payloads.same, await pool.put(sent))
        assert same(sent, back, {})
