"""Large arguments and results, as users send them: what arrives is what was sent."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import product

import numpy as np
import pytest

import jobs
import jobs_payloads as payloads
from offloop import Pool
from offloop.errors import NotOffloadable, RemoteError

SMALL, MEDIUM, LARGE = 1_000, 100_000, 3_000_000
ENGINES = pytest.mark.parametrize("engine", ["local", "inline"])
STRUCTURE = np.dtype([("id", "i4"), ("position", "f8", (3,)), ("tag", "S5")])


def array(size):
    return np.arange(size, dtype="u1")


@contextlib.contextmanager
def case(*what):
    """Name one of many cases that share a pool, should it fail."""
    try:
        yield
    except Exception as error:
        error.add_note(f"in the case: {' '.join(map(str, what))}")
        raise


BYTES_LIKE = {
    "bytes": lambda n: bytes(array(n)),
    "bytearray": lambda n: bytearray(array(n)),
    "memoryview": lambda n: memoryview(bytearray(array(n))),
    "read-only memoryview": lambda n: memoryview(bytes(array(n))),
    "memoryview of floats": lambda n: memoryview(np.arange(n // 8, dtype="f8")),
    "memoryview of a matrix": lambda n: memoryview(np.ones((4, n // 8), "i2")),
    "memoryview with gaps": lambda n: memoryview(bytearray(array(n)))[::3],
    "ascii": lambda n: "word " * (n // 5),
    "latin": lambda n: "wört " * (n // 5),
    "emoji": lambda n: "🙂 and \ud800 " * (n // 10),
}


@pytest.mark.slow
@ENGINES
async def test_what_has_bytes_keeps_its_type_both_ways(engine):
    async with Pool(1, engine=engine) as pool:
        for kind, size in product(BYTES_LIKE, (8, SMALL, MEDIUM, LARGE)):
            with case(kind, size):
                sent = BYTES_LIKE[kind](size)
                expected = payloads.describe(sent)
                there, back = await pool.run(payloads.describe_and_return, sent)
                assert there == payloads.describe(back) == expected
                back = await pool.run(payloads.same, sent)
                assert payloads.describe(back) == expected
                (deep,), _ = await pool.run(jobs.echo, [{"deep": sent}])
                assert payloads.describe(deep[0]["deep"]) == expected


@ENGINES
async def test_what_is_empty_keeps_its_type(engine):
    async with Pool(1, engine=engine) as pool:
        for sent in (b"", bytearray(), memoryview(b""), memoryview(b"abc")[:0], ""):
            back = await pool.run(payloads.same, sent)
            assert payloads.describe(back) == payloads.describe(sent)
        with pytest.raises(NotOffloadable, match="one dimension only"):
            pool.submit(len, memoryview(np.ones((4, 0))))


ARRAYS = {
    "contiguous": lambda n: np.arange(n, dtype="f8"),
    "matrix": lambda n: np.arange(n, dtype="i2").reshape(-1, 10),
    "fortran": lambda n: np.asfortranarray(np.ones((10, n // 10), "f4")),
    "every third": lambda n: np.arange(n, dtype="f8")[::3],
    "backwards": lambda n: np.arange(n, dtype="f8")[::-1],
    "columns": lambda n: np.ones((n // 10, 10))[:, 2:5],
    "axes swapped": lambda n: np.ones((n // 20, 4, 5)).swapaxes(0, 1),
    "repeated": lambda n: np.broadcast_to(np.float32(3), (n,)),
    "no rows": lambda n: np.empty((0, n)),
    "a number": lambda n: np.array(3.5),
    "structured": lambda n: np.zeros(n // 37, STRUCTURE),
    "big-endian": lambda n: np.arange(n, dtype=">i4"),
    "dates": lambda n: np.arange(n).astype("M8[s]"),
    "texts": lambda n: np.full(n // 20, "äöü"),
    "complex": lambda n: np.full(n, 1j),
    "objects": lambda n: np.array([1, "two", None] * (n // 3), object),
    "records": lambda n: np.zeros(n // 37, STRUCTURE).view(np.recarray),
    "np.matrix": lambda n: np.ones((n // 10, 10)).view(np.matrix),
}


def same_array(one, other):
    """Compare all that numpy would: objects differ in their bytes."""
    if one.dtype.hasobject:
        assert one.tolist() == other.tolist()
        return payloads.describe(one)[:-1] == payloads.describe(other)[:-1]
    return payloads.describe(one) == payloads.describe(other)


@pytest.mark.slow
@ENGINES
async def test_arrays_keep_type_order_and_flags_both_ways(engine):
    async with Pool(1, engine=engine) as pool:
        for kind, size in product(ARRAYS, (SMALL, MEDIUM, LARGE // 8)):
            with case(kind, size):
                await check_array(pool, ARRAYS[kind](size))


async def check_array(pool, sent):
    """Send an array there and back. Gaps are not sent: its elements are in a row."""
    flags = sent.flags
    (there, *_), back = await asyncio.gather(
        pool.run(payloads.describe_and_return, sent), pool.run(payloads.same, sent)
    )
    if not sent.dtype.hasobject and flags.forc:
        assert there == payloads.describe(sent)
    assert back.dtype == sent.dtype
    assert back.shape == sent.shape
    assert type(back) is type(sent)
    np.testing.assert_array_equal(back, sent)
    if flags.forc:
        assert same_array(back, sent)
    else:
        assert back.flags.writeable == flags.writeable
        assert back.strides == sent.copy("K").strides


@ENGINES
async def test_read_only_arrays_stay_read_only(engine):
    sent = np.ones(MEDIUM)
    sent.flags.writeable = False
    async with Pool(1, engine=engine) as pool:
        there, back = await pool.run(payloads.describe_and_return, sent)
        assert there == payloads.describe(sent)
        assert not back.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            await pool.run(payloads.write_to, {"x": sent}["x"])


@ENGINES
async def test_arrays_mapped_from_files(tmp_path, engine):
    async with Pool(1, engine=engine) as pool:
        for size, mode in product((SMALL, MEDIUM, LARGE), ("r", "r+", "c")):
            path = tmp_path / f"array-{size}.npy"
            np.save(path, array(size))
            sent = np.load(path, mmap_mode=mode)
            for argument in (sent, [sent], {"deep": [sent]}):
                with case(size, mode, type(argument)):
                    (there,), _ = await pool.run(jobs.echo, argument)
                    while not isinstance(there, np.ndarray):
                        (there,) = there.values() if isinstance(there, dict) else there
                    assert payloads.describe(there) == payloads.describe(sent)


@ENGINES
@pytest.mark.parametrize("size", [SMALL, MEDIUM, LARGE])
async def test_at_any_depth(size, engine):
    samples = np.arange(size, dtype="f4")
    sent = {
        "rows": [
            payloads.Measurement("first", samples, {"fortran": samples[::2]}),
            payloads.Measurement("second", samples[::-1].copy(), {"data": b"x" * size}),
        ],
        "table": {f"column {n}": samples + n for n in range(3)},
        "text": ("ä" * size, bytearray(size)),
    }
    async with Pool(1, engine=engine) as pool:
        (there,), words = await pool.run(jobs.echo, sent, word=sent["table"])
    np.testing.assert_equal(
        [vars(row) for row in there["rows"]], [vars(row) for row in sent["rows"]]
    )
    np.testing.assert_equal(there["table"], sent["table"])
    np.testing.assert_equal(words, {"word": sent["table"]})
    assert there["text"] == sent["text"]
    assert type(there["text"][1]) is bytearray


async def test_an_object_that_is_named_twice_is_one_object_there(lend):
    samples = np.ones(MEDIUM)
    async with lend() as pool:
        (pair,), _ = await pool.run(jobs.echo, [samples, samples])
        assert await pool.run(payloads.are_one, samples, samples, third=samples)
        for kind in ("bytes", "bytearray", "memoryview", "ascii", "latin"):
            sent = BYTES_LIKE[kind](MEDIUM)
            assert await pool.run(payloads.are_one, sent, sent, third=sent)
            assert not await pool.run(payloads.are_one, sent, BYTES_LIKE[kind](MEDIUM))
    assert pair[0] is pair[1]


async def test_many_small_objects_go_as_well(lend):
    async with lend() as pool:
        sent = [(n, str(n)) for n in range(30_000)]
        (there,), _ = await pool.run(jobs.echo, sent)
        assert there == sent
        assert [each async for each in pool.map(len, [sent, sent[:7]])] == [30_000, 7]


async def test_of_many_small_objects_the_one_that_cannot_go_is_named(lend):
    async with lend() as pool:
        sent = [*range(30_000), (n for n in ())]
        with pytest.raises(NotOffloadable, match=r"argument 2 .*generator"):
            await pool.run(jobs.echo, 1, sent)
        job = pool.submit(jobs.echo, 1, sent)
        with pytest.raises(NotOffloadable, match=r"argument 2 .*generator"):
            await job
        assert job.state == "failed"
        assert await pool.run(jobs.add, 1, 2) == 3


@ENGINES
async def test_a_large_result_that_cannot_be_read_fails_alone(engine):
    async with Pool(1, engine=engine) as pool:
        with pytest.raises(RemoteError, match="not to be read"):
            await pool.run(payloads.unreadable)
        with pytest.raises(RemoteError, match="not to be read"):
            await pool.run(payloads.same, 1) and await pool.run(payloads.unreadable)
        assert await pool.run(jobs.add, 1, 2) == 3


async def test_an_argument_that_cannot_be_read_fails_alone():
    async with Pool(1) as pool:
        with pytest.raises(ValueError, match="not to be read"):
            await pool.run(len, [np.ones(MEDIUM), payloads.Unreadable()])
        assert pool.stats().workers_lost == 0
        assert await pool.run(jobs.add, 1, 2) == 3


# ---- arrays in shared memory ---------------------------------------------------------


@ENGINES
async def test_empty_and_zeros_give_arrays_of_any_shape_and_type(engine):
    async with Pool(1, engine=engine) as pool:
        for shape, dtype in [
            (5, "f8"),
            (MEDIUM, "u1"),
            ((300, 100), "f4"),
            ((100, 0), "i8"),
            (1000, STRUCTURE),
            (np.int64(MEDIUM), np.float32),
            ([100, 200], complex),
        ]:
            made = pool.zeros(shape, dtype)
            expected = np.zeros(shape, dtype)
            assert (made.shape, made.dtype) == (expected.shape, expected.dtype)
            assert made.flags.writeable
            assert made.tobytes() == expected.tobytes()
            assert pool.empty(shape, dtype).shape == expected.shape
            (there,), _ = await pool.run(jobs.echo, made)
            assert there.tobytes() == expected.tobytes()
        for wrong in (-1, (-MEDIUM, 5)):
            with pytest.raises(ValueError, match="negative"):
                pool.empty(wrong)
        with pytest.raises(TypeError, match="holds Python objects"):
            pool.empty(5, object)


async def test_an_array_in_shared_memory_is_seen_and_not_copied(lend, gate):
    reached, until = gate(), gate()
    async with lend() as pool:
        shared = pool.zeros(MEDIUM)
        job = pool.submit(payloads.hold, shared, str(reached), str(until))
        await reached.reached()
        shared[:] = 1  # as the documentation says not to
        until.open()
        assert await job == (0.0, float(MEDIUM))


async def test_parts_of_an_array_in_shared_memory(lend):
    async with lend() as pool:
        shared = pool.zeros(MEDIUM)
        shared[:] = 1
        rows = shared.reshape(100, -1)
        for part in (shared[10:-10], rows[5:50], rows.T, shared[::2]):
            with case(part.shape):
                assert await pool.run(payloads.total, part) == [part.size]
        with pytest.raises(ValueError, match="read-only"):
            await pool.run(payloads.write_to, shared[5:])


async def test_many_jobs_may_see_one_array_in_shared_memory(lend):
    async with lend(2) as pool:
        shared = pool.empty(MEDIUM)
        shared[:] = 2
        runs = [pool.run(payloads.total, shared, [shared][0]) for _ in range(20)]
        assert await asyncio.gather(*runs) == [[2.0 * MEDIUM] * 2] * 20


@ENGINES
async def test_a_job_returns_its_own_shared_memory(engine):
    async with Pool(1, engine=engine) as pool:
        for size in (10, MEDIUM, LARGE):
            result = await pool.run(payloads.fill, size, 7)
            assert result.tobytes() == bytes([7]) * size
            assert result.flags.writeable
            part = await pool.run(payloads.fill_part, size, 8)
            assert part.tobytes() == bytes([8]) * (size // 2 - size // 4)
        assert await pool.run(payloads.small_empty) == ((3,), "<f8", True)


async def test_a_job_that_returns_shared_memory_makes_no_copy(lend):
    async with lend() as pool:
        first = await pool.run(payloads.fill_and_keep, MEDIUM, 7)
        assert await pool.run(payloads.total_of_kept) == [7 * MEDIUM]
        first[:] = 1  # the same memory: that is what is saved
        assert await pool.run(payloads.total_of_kept) == [MEDIUM]


# ---- objects that are sent once ------------------------------------------------------


@ENGINES
async def test_put_is_an_argument_wherever_one_stands(engine):
    sent = {"array": np.ones((300, 100)), "name": "model", "data": b"abc" * MEDIUM}
    seen = ((np.dtype("f8"), (300, 100), (True, False), False), "model", b"abc")
    async with Pool(2, engine=engine) as pool:
        ref = await pool.put(sent)
        assert repr(ref).endswith("to dict>")
        assert await pool.run(payloads.look, ref) == seen
        assert await pool.run(payloads.look, value=ref) == seen
        (inside,), _ = await pool.run(jobs.echo, [{"deep": (ref, 1)}])
        np.testing.assert_equal(inside[0]["deep"][0], sent)
        assert [each async for each in pool.map(payloads.look, [ref] * 9)] == [seen] * 9
        with_array = await pool.run(jobs.echo, ref, np.ones(MEDIUM), [0] * 50_000)
        assert with_array[0][0]["name"] == "model"
        assert (await pool.run(jobs.echo, ref, ref))[0][1]["name"] == "model"


THINGS = (7, None, "x" * LARGE, "ä" * LARGE, b"", bytearray(LARGE), [0] * 50_000)


@ENGINES
async def test_anything_can_be_put(engine):
    async with Pool(1, engine=engine) as pool:
        for number, thing in enumerate(THINGS):
            with case(number):
                (there,), _ = await pool.run(jobs.echo, await pool.put(thing))
                assert there == thing
                assert type(there) is type(thing)


async def test_what_was_put_may_change_here_afterwards(lend):
    async with lend() as pool:
        sent = np.ones(LARGE)
        ref = await pool.put(sent)
        sent[:] = 2
        assert await pool.run(payloads.total, ref) == [LARGE]


async def test_what_was_put_is_known_to_later_workers():
    async with Pool(1) as pool:
        ref = await pool.put(np.ones(MEDIUM))
        assert await pool.run(payloads.total, ref) == [MEDIUM]
        dying = pool.submit(jobs.die_with_code, 3)
        await asyncio.wait([dying])
        assert dying.exception() is not None
        assert await pool.run(payloads.total, ref) == [MEDIUM]
        await pool.resize(3)
        await pool.ready()
        runs = [pool.run(payloads.total, ref) for _ in range(30)]
        assert await asyncio.gather(*runs) == [[MEDIUM]] * 30


@ENGINES
async def test_a_ref_belongs_to_its_pool(engine):
    async with Pool(1, engine=engine) as pool, Pool(1, engine=engine) as other:
        ref = await pool.put([1, 2])
        assert await pool.run(len, ref) == 2
        for _ in range(2):
            with pytest.raises(NotOffloadable, match=r"Ref to list can only be .*pool"):
                other.submit(len, ref)
            await other.put(3)  # now it has something of its own
        with pytest.raises(NotOffloadable, match="Ref to list"):
            await pool.put([ref])


@ENGINES
async def test_what_cannot_travel_cannot_be_put(engine):
    async with Pool(1, engine=engine) as pool:
        with pytest.raises(NotOffloadable, match=r"put\(generator\)"):
            await pool.put(n for n in ())
        with pytest.raises(NotOffloadable, match=r"put\(list\)"):
            await pool.put([*range(50_000), (n for n in ())])
