"""Calls and results arrive as they were, or are refused in clear words."""

import threading

import numpy as np
import pytest

from jobs_wire import LIMIT, Model, Refuses, add
from offloop.errors import NotOffloadable, ResultNotEncodable
from offloop.wire import codec

LARGE = codec.LONG_PLAIN
SMALL = 100


def through(*args, **kwargs):
    """What arrives, when the buffers come to lie in writable memory."""
    payload, buffers = codec.encode_call(args, kwargs, "call")
    return codec.decode_call(payload, [bytearray(buffer) for buffer in buffers])


def one(value):
    return through(value)[0][0]


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, "a", None), {}), (([1], {2}), {"key": {"a": Model(3)}})],
)
def test_a_call_arrives_as_it_was(args, kwargs):
    assert through(*args, **kwargs) == (args, kwargs)


def test_an_importable_function_is_the_same_function():
    assert one(add) is add


def test_a_lambda_travels_by_value():
    assert one(lambda a: a + LIMIT)(1) == LIMIT + 1


@pytest.mark.parametrize("size", [0, SMALL, LARGE])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_keep_their_type(kind, size):
    value = kind(b"x" * size)
    received = one(value)
    assert type(received) is kind
    assert received == value


def test_bytes_by_keyword_keep_their_type():
    value = b"x" * LARGE
    assert through(data=value) == ((), {"data": value})


@pytest.mark.parametrize(
    "view",
    [
        memoryview(b""),
        memoryview(b"x" * SMALL),
        memoryview(bytearray(SMALL)),
        memoryview(b"x" * LARGE),
        memoryview(bytearray(LARGE)),
        memoryview(bytearray(LARGE)).cast("d"),
        memoryview(bytes(LARGE)).cast("I", (4, LARGE // 16)),
        memoryview(b"12345678").cast("d", ()),
        memoryview(b"0123456789")[::2],
        memoryview(bytearray(b"0123456789"))[::-1],
        memoryview(np.asfortranarray(np.arange(6.0).reshape(2, 3))),
    ],
    ids=lambda view: f"{view.format}{view.shape}{'r' if view.readonly else 'w'}",
)
def test_a_memoryview_keeps_its_shape_format_and_access(view):
    received = one(view)
    assert type(received) is memoryview
    assert received == view
    assert received.format == view.format
    assert received.shape == view.shape
    assert received.readonly == view.readonly


def test_a_writable_memoryview_is_writable_though_the_memory_it_came_in_is_not():
    payload, buffers = codec.encode_call((memoryview(bytearray(LARGE)),), {}, "call")
    (received,), _ = codec.decode_call(payload, [bytes(buffers[0])])
    received[0] = 1
    assert received[0] == 1


def test_a_memoryview_of_records_is_refused_rather_than_changed():
    records = memoryview(np.zeros(3, dtype="i4,f8"))
    with pytest.raises(NotOffloadable, match="argument 1"):
        codec.encode_call((records,), {}, "call")


@pytest.mark.parametrize(
    "value",
    [
        b"x" * LARGE,
        bytearray(LARGE),
        memoryview(bytes(LARGE)),
        np.zeros(LARGE, dtype="u1"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_large_values_travel_beside_the_payload_without_a_copy(value):
    payload, (buffer,) = codec.encode_call((value,), {}, "call")
    assert len(payload) < SMALL * 10
    ours = np.frombuffer(buffer, dtype="u1")
    assert np.shares_memory(ours, np.frombuffer(value, dtype="u1"))


@pytest.mark.parametrize("size", [0, SMALL, codec.OUT_OF_BAND - 1])
def test_small_values_travel_inside_the_payload(size):
    arrays = (b"x" * size, memoryview(b"x" * size), np.zeros(size, dtype="u1"))
    _, buffers = codec.encode_call(arrays, {}, "call")
    assert buffers == []


def test_bytes_and_texts_need_to_be_longer_to_travel_beside():
    for value in (b"x" * (LARGE - 1), "x" * (LARGE - 1)):
        assert codec.encode_call((value,), {}, "call") == ((value,), [])
        assert codec.encode_result(value, "call") == ((value,), [])
        _, (buffer,) = codec.encode_call((value + value[:1],), {}, "call")
        assert memoryview(buffer).nbytes == LARGE
    _, buffers = codec.encode_call((bytearray(codec.OUT_OF_BAND),), {}, "call")
    assert len(buffers) == 1


def test_small_and_large_arrays_in_one_call_find_their_places():
    small, large = np.arange(3), np.arange(LARGE)
    payload, buffers = codec.encode_call((small, large, [small]), {}, "call")
    assert len(buffers) == 1
    (first, second, (third,)), _ = codec.decode_call(payload, buffers)
    assert (first == small).all()
    assert (second == large).all()
    assert (third == small).all()


def test_large_arrays_beside_a_lambda_still_travel_without_a_copy():
    array = np.zeros(LARGE)
    payload, (buffer,) = codec.encode_call((lambda a: a, array, np.ones(3)), {}, "call")
    assert np.shares_memory(np.frombuffer(buffer), array)
    (_, received, ones), _ = codec.decode_call(payload, [buffer])
    assert (received == array).all()
    assert ones.sum() == 3


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_array_arrives_writable(size):
    received = one(np.zeros(size))
    received[0] = 1
    assert received[0] == 1


def test_an_array_on_read_only_memory_arrives_read_only():
    payload, buffers = codec.encode_call((np.zeros(LARGE),), {}, "call")
    (received,), _ = codec.decode_call(payload, [bytes(buffers[0])])
    assert not received.flags.writeable


def test_a_text_that_names_main_arrives_like_any_other():
    assert one("if __name__ == '__main__':") == "if __name__ == '__main__':"


@pytest.mark.parametrize("value", [1, b"x" * LARGE, [np.zeros(LARGE)]])
def test_one_object_in_band_has_no_buffers(value):
    payload, buffers = codec.encode(value, describe="setup", in_band=True)
    assert buffers == []
    assert repr(codec.decode(payload)) == repr(value)


def test_one_object_and_its_buffers():
    payload, buffers = codec.encode(bytearray(LARGE), describe="it")
    assert len(buffers) == 1
    assert codec.decode(payload, buffers) == bytearray(LARGE)


def test_a_result_arrives_as_it_was():
    payload, buffers = codec.encode_result(b"x" * LARGE, "call")
    assert len(buffers) == 1
    assert codec.decode(payload, buffers) == b"x" * LARGE


def test_an_error_while_decoding_passes_through():
    with pytest.raises(EOFError):
        codec.decode(b"")
    with pytest.raises(EOFError):
        codec.decode_call(b"")


# What cannot travel


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((1, threading.Lock()), {}, r"argument 2 \(of type _thread.lock\)"),
        ((1,), {"guard": threading.Lock()}, "argument 'guard'"),
        ((Refuses(),), {}, r"argument 1 \(of type jobs_wire.Refuses\)"),
        ((iter(count for count in ()),), {}, "argument 1 .of type generator"),
    ],
)
def test_the_message_names_the_argument_and_says_what_to_do(args, kwargs, named):
    with pytest.raises(NotOffloadable, match=named) as caught:
        codec.encode_call(args, kwargs, "app.thumbnail")
    message = str(caught.value)
    assert message.startswith("app.thumbnail: ")
    assert "inside the job" in message
    assert "initializer" in message
    assert isinstance(caught.value.__cause__, TypeError)


def test_the_message_knows_that_the_first_argument_is_the_callable():
    with pytest.raises(NotOffloadable, match="the callable"):
        codec.encode_call((Refuses(), 1), {}, "call", applied=True)
    with pytest.raises(NotOffloadable, match="argument 1"):
        codec.encode_call((add, Refuses()), {}, "call", applied=True)


def test_the_reason_is_the_cause():
    error = ValueError("not today")
    with pytest.raises(NotOffloadable, match="not today") as caught:
        codec.encode_call((Refuses(error),), {}, "call")
    assert caught.value.__cause__ is error


def test_arguments_that_fail_only_together_are_named_together():
    class Once:
        """Can be pickled by itself, once the call was tried."""

        tries = 0

        def __reduce__(self):
            Once.tries += 1
            if Once.tries <= 2:
                raise TypeError("not yet")
            return int, ()

    with pytest.raises(NotOffloadable, match="the arguments together"):
        codec.encode_call((Once(),), {}, "call")


def test_too_deeply_nested_is_refused():
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(NotOffloadable, match="argument 1"):
        codec.encode_call((nested,), {}, "call")


def test_what_ends_the_program_is_not_taken_for_a_refusal():
    with pytest.raises(KeyboardInterrupt):
        codec.encode_call((Refuses(KeyboardInterrupt()),), {}, "call")


def test_one_object_that_cannot_travel():
    with pytest.raises(NotOffloadable, match=r"initargs.*_thread.lock"):
        codec.encode(threading.Lock(), describe="initargs")


def test_a_result_that_cannot_travel():
    with pytest.raises(ResultNotEncodable, match=r"call: its result.*lock") as caught:
        codec.encode_result(threading.Lock(), "call")
    assert caught.value.function == "call"
    assert isinstance(caught.value.__cause__, TypeError)


# ---- what takes long, and what is pickled in one step --------------------------------


def carried(value, *, slowly):
    """What arrives of a value in a list, and the buffers that it took."""
    payload, buffers = codec.encode_call(([value],), {}, "call", slowly=slowly)
    (args, _) = codec.decode_call(payload, [bytearray(one) for one in buffers])
    return args[0][0], buffers


@pytest.mark.parametrize(
    "long",
    [
        [0] * 100_000,
        memoryview(bytes(200_000))[::2],
        "ä" * 100_000,
        np.arange(50_000)[::2],
        [np.ones(LARGE), *(np.ones(1_000) for _ in range(20))],
    ],
    ids=["list", "view with gaps", "text", "array with gaps", "large and small"],
)
def test_what_takes_long_is_not_for_an_event_loop(long):
    with pytest.raises(codec.Bulky):
        codec.encode_call((1, long), {}, "call")
    args, _ = codec.encode_call((1, long), {}, "call", slowly=True)
    assert args


def test_one_object_that_takes_long_is_not_for_an_event_loop():
    with pytest.raises(codec.Bulky):
        codec.encode([0] * 100_000, describe="put")
    payload, buffers = codec.encode([0] * 100_000, describe="put", slowly=True)
    assert codec.decode(payload, buffers) == [0] * 100_000


@pytest.mark.parametrize("slowly", [False, True])
def test_of_large_and_small_buffers_only_the_large_travel_beside(slowly):
    large, small = np.ones(LARGE), np.ones(SMALL)
    there, buffers = carried([large, small], slowly=slowly)
    np.testing.assert_equal(there, [large, small])
    assert len(buffers) == 1


def test_small_and_plain_values_need_no_pickle():
    assert codec.encode_call((1, "a"), {}, "call") == ((1, "a"), [])
    assert codec.encode_result(3.5, "call") == ((3.5,), [])
    assert codec.decode((3.5,)) == 3.5


def test_who_speaks_of_the_main_module_is_understood():
    assert one(["__main__", 1]) == ["__main__", 1]


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_bytes_of_megabytes_keep_their_type(kind):
    value = kind(3_000_000)
    there = one(value)
    assert type(there) is kind
    assert there == value


def test_a_numpy_number_a_function_and_an_array_of_objects():
    assert one(np.float64(2.5)) == 2.5
    assert one(np.add) is np.add
    things = np.array([{"a": 1}, None], object)
    assert one(things).tolist() == things.tolist()


def test_a_view_without_items_has_one_dimension():
    with pytest.raises(NotOffloadable, match="one dimension only"):
        codec.encode_call((memoryview(np.ones((4, 0))),), {}, "call")


@pytest.mark.parametrize(
    ("rows", "spread"), [([b"x" * LARGE, "a"], False), ([(1, b"x" * LARGE)], True)]
)
def test_items_of_a_chunk_are_lifted_one_by_one(rows, spread):
    payload, buffers = codec.encode_call((rows, spread, True), {}, "call", many=True)
    assert len(buffers) == 1
    ((there, *rest), _) = codec.decode_call(payload, buffers)
    assert (there, rest) == (rows, [spread, True])
    numbers, _ = codec.encode_call(([1, 2], False, True), {}, "call", many=True)
    assert codec.decode_call(numbers)[0] == ([1, 2], False, True)
