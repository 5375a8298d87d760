"""What is large is pickled in slices, and other threads run between them."""

from __future__ import annotations

import mmap
import os
import pickle
import sys
import threading
import time

import numpy as np
import pytest

from offloop.wire import bulk
from offloop.wire.beside import Beside
from offloop.wire.bulk import (
    SLICE,
    contains,
    dump_slowly,
    load_slowly,
    probe,
    read_text,
    text_buffer,
)
from offloop.wire.by_value import dumps_by_value

MANY = [(number, str(number)) for number in range(50_000)]


class Turns:
    """Counts how often another thread gets a turn while the switch interval is endless.

    Then the only turns are those that the code in the block gives by itself.
    """

    def __enter__(self):
        self._interval = sys.getswitchinterval()
        self._done = False
        self.count = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        sys.setswitchinterval(1000.0)
        return self

    def _run(self):
        while not self._done:
            self.count += 1
            time.sleep(1e-6)

    def __exit__(self, *error):
        self._done = True
        sys.setswitchinterval(self._interval)
        self._thread.join()


#: turns that others have if there is any pause at all; how many they take is up to the
#: kernel, but without a pause there is none
FEW = 3


def turns_once(work, *args):
    """Return what `work` returned, and the turns that others had meanwhile."""
    with Turns() as others:
        before = others.count
        result = work(*args)
        return result, others.count - before


def turns(work, *args):
    """Return what `work` returned, and the turns that others had meanwhile.

    On a busy machine the kernel may let nobody take a pause that is offered: then the
    work is done again, and the turns of the best time count.
    """
    most = 0
    with Turns() as others:
        for _ in range(20):
            before = others.count
            result = work(*args)
            most = max(most, others.count - before)
            if most >= FEW:
                break
    return result, most


# ---- probe ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "obj", [None, 5, ((1, "two"), {"three": 3.0}), list(range(20_000)), MANY[:1000]]
)
def test_what_is_small_is_pickled_at_once(obj):
    payload = probe(obj, 64 * 1024)
    assert type(payload) is bytes
    assert pickle.loads(payload) == obj


def test_a_payload_of_several_frames_is_whole():
    assert pickle.loads(probe(MANY, 2**20)) == MANY


@pytest.mark.parametrize("limit", [10, 64 * 1024])
def test_what_is_large_is_left_alone_before_long(limit):
    class Item:
        pickled = 0

        def __reduce__(self):
            Item.pickled += 1
            return int, (5,)

    assert probe([Item() for _ in range(100_000)], limit) is None
    assert Item.pickled < 20_000


def test_the_limit_is_the_last_size_that_is_small():
    size = len(pickle.dumps(MANY[:100], 5))
    assert probe(MANY[:100], size) is not None
    assert probe(MANY[:100], size - 1) is None


def test_large_buffers_go_beside_a_probe():
    buffers: list[pickle.PickleBuffer] = []
    array = np.arange(100_000)
    payload = probe([array, array], 1000, buffers.append)
    copies = pickle.loads(payload, buffers=buffers)
    assert copies[0] is copies[1]
    assert np.shares_memory(copies[0], array)


@pytest.mark.parametrize("dump", [bulk.dump, dump_slowly])
def test_a_large_buffer_may_stay_in_the_pickle(dump):
    for size in (100, 100_000, 1_000_000):
        array = np.arange(size)
        for beside in (None, Beside()):
            payload = dump([array, array], lambda buffer: True, beside=beside)
            if beside:
                payload, buffers = beside.join(payload, [], slowly=False)
                copies = pickle.loads(payload, buffers=buffers)
            else:
                copies = pickle.loads(payload)
            np.testing.assert_array_equal(copies[0], array)
            assert copies[0] is copies[1]


def test_a_large_buffer_that_nobody_takes_is_not_copied_to_find_that_out():
    file = os.memfd_create("larger than any memory")
    os.ftruncate(file, 1 << 42)
    with mmap.mmap(file, 1 << 42, prot=mmap.PROT_READ) as mapping:
        large = pickle.PickleBuffer(mapping)
        assert probe([large], 10**6) is None
        large.release()
    os.close(file)
    small = np.arange(100.0)
    assert (pickle.loads(probe([small], 10**6))[0] == small).all()


@pytest.mark.parametrize("dump", [lambda obj: probe(obj, 10**6), dump_slowly])
def test_what_cannot_be_pickled_is_refused_as_ever(dump):
    with pytest.raises(TypeError, match=r"cannot pickle .*lock"):
        dump([threading.Lock()])


# ---- slowly --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "obj",
    [
        None,
        MANY,
        dict(MANY),
        [b"long" * SLICE, "l\N{LATIN SMALL LETTER O WITH DIAERESIS}ng" * SLICE, 5],
        bytearray(b"x" * (SLICE + 1)),
    ],
    ids=["nothing", "many", "dict", "long ones", "bytearray"],
)
def test_a_copy_equals_its_original(obj):
    assert load_slowly(dump_slowly(obj)) == obj
    assert pickle.loads(dump_slowly(obj)) == obj
    assert load_slowly(pickle.dumps(obj, 5)) == obj


def test_what_refers_to_itself_does_so_afterwards():
    items: list = list(MANY)
    items += [items, items[5]]
    copy = load_slowly(dump_slowly(items))
    assert copy[-2] is copy
    assert copy[-1] is copy[5]


def test_buffers_go_beside_slow_ones_too():
    buffers: list[pickle.PickleBuffer] = []
    array = np.arange(100_000)
    copy = load_slowly(dump_slowly([MANY, array], buffers.append), buffers)
    assert copy[0] == MANY
    assert np.shares_memory(copy[1], array)


def test_another_pickler_may_be_used():
    factor = 3
    payload = dump_slowly(
        [MANY, lambda number: number * factor],
        pickler=pytest.importorskip("cloudpickle").Pickler,
    )
    assert load_slowly(payload)[1](5) == 15
    assert dumps_by_value(MANY) == bytes(dump_slowly(MANY))


def test_others_run_while_an_object_is_pickled_and_read():
    payload, none = turns_once(pickle.dumps, MANY, 5)
    assert none == 0
    frames = len(payload) // 65536
    assert frames > 8
    payload, some = turns(dump_slowly, MANY)
    assert some >= FEW
    copy, none = turns_once(pickle.loads, payload)
    assert none == 0
    copy, some = turns(load_slowly, payload)
    assert some >= FEW
    assert copy == MANY


def test_others_run_while_one_long_object_is_pickled_and_read():
    long = b"x" * (20 * SLICE)
    payload, some = turns(dump_slowly, long)
    assert some >= FEW
    # Read in one step, with the GIL released: too short for anybody's turn.
    copy, _ = turns(load_slowly, payload)
    assert copy == long


@pytest.mark.parametrize("step", [1000, 65_000, 300_000])
def test_a_pickle_may_lie_in_pieces_cut_anywhere(step):
    sent = [MANY, b"long" * SLICE, "long" * SLICE]
    payload = pickle.dumps(sent, 5)
    pieces = [payload[at : at + step] for at in range(0, len(payload), step)]
    assert bulk.load_pieces([b"", *pieces, b""], ()) == sent


def test_a_pickle_with_lines_is_refused():
    with pytest.raises(pickle.UnpicklingError, match="lines"):
        load_slowly(pickle.dumps("old", 0))


@pytest.mark.parametrize("cut", [1, 1000, 70_000, -1])
@pytest.mark.parametrize("obj", [MANY, b"x" * (3 * SLICE)], ids=["many", "long"])
def test_a_pickle_that_is_cut_off_is_an_error(obj, cut):
    with pytest.raises((EOFError, pickle.UnpicklingError)):
        load_slowly(dump_slowly(obj)[:cut])


# ---- markers -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "at", [0, 1, SLICE - 7, SLICE - 6, SLICE - 1, SLICE, 2 * SLICE + 5, 3 * SLICE - 7]
)
def test_a_marker_is_found_wherever_it_is(at):
    payload = bytearray(3 * SLICE)
    assert not contains(payload, b"_main__")
    payload[at : at + 7] = b"_main__"
    assert contains(payload, b"_main__")
    payload[at + 6] = 0
    assert not contains(bytes(payload), b"_main__")


def test_others_run_during_a_search():
    found, some = turns(contains, bytes(20 * SLICE), b"_main__")
    assert not found
    assert some >= FEW


# ---- texts ---------------------------------------------------------------------------

TEXTS = {
    "nothing": "",
    "a letter": "a",
    "short": "ASCII only",
    "long": "ASCII only" * SLICE,
    "German": "Stra\N{LATIN SMALL LETTER SHARP S}e",
    "long German": "x" + "\N{LATIN SMALL LETTER A WITH DIAERESIS}" * (2 * SLICE),
    "long Greek": "xy" + "\N{GREEK SMALL LETTER ALPHA}z" * SLICE,
    "long Chinese": "\N{CJK UNIFIED IDEOGRAPH-4E2D}\N{CJK UNIFIED IDEOGRAPH-6587}"
    * SLICE,
    "long emoji": "xyz" + "\N{PILE OF POO}" * SLICE,
    "lone surrogates": "x\ud800" * (SLICE // 4),
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_text_is_the_same_afterwards(text):
    buffer = text_buffer(text)
    assert buffer.readonly
    assert bytes(buffer) == text.encode("utf-8", "surrogatepass")
    for source in (buffer, bytes(buffer), bytearray(buffer)):
        copy = read_text(source, text.isascii())
        assert copy == text
        assert hash(copy) == hash(text)
        assert copy.isascii() == text.isascii()


def test_an_ascii_text_is_not_copied_and_lives_as_long_as_its_bytes():
    text = "".join(["never ", "interned"] * 1000)
    references = sys.getrefcount(text)
    buffer = text_buffer(text)[5:]
    again = text_buffer(text)
    first, second = (np.frombuffer(one, "u1") for one in (buffer, again))
    assert np.shares_memory(first, second)
    assert sys.getrefcount(text) == references + 2
    wanted = text[5:].encode()
    del text, again, second
    assert bytes(buffer) == wanted


@pytest.mark.parametrize("name", ["long", "long Chinese"])
def test_others_run_while_a_text_is_read(name):
    text = TEXTS[name] * 5
    buffer, some = turns(text_buffer, text)
    assert text.isascii() or some >= FEW
    copy, some = turns(read_text, buffer, text.isascii())
    assert some >= FEW
    assert copy == text


def test_every_slice_ends_between_two_characters(monkeypatch):
    monkeypatch.setattr(bulk, "SLICE", 5)
    for text in TEXTS.values():
        part = text[:100]
        assert read_text(text_buffer(part), part.isascii()) == part
