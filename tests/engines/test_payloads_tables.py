"""Tables of pandas and Arrow: their columns travel beside the pickle, and arrive."""

from __future__ import annotations

import numpy as np
import pytest

import jobs
from offloop.wire import codec

ROWS = 50_000


def table(kind):
    library = pytest.importorskip(kind)
    columns = {"whole": np.arange(ROWS), "part": np.linspace(0, 1, ROWS)}
    columns["name"] = ["a", "bc"] * (ROWS // 2)
    return library.DataFrame(columns) if kind == "pandas" else library.table(columns)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pandas", "pyarrow"])
async def test_a_table_arrives_as_it_was(lend, kind):
    sent = table(kind)
    async with lend() as pool:
        (there,), words = await pool.run(jobs.echo, sent, deep=[{"x": sent}])
    for one in (there, words["deep"][0]["x"]):
        assert type(one) is type(sent)
        assert one.equals(sent)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pandas", "pyarrow"])
def test_its_columns_are_not_copied_into_the_pickle(kind):
    sent = table(kind)
    payload, buffers = codec.encode_call((sent,), {}, "call", slowly=True)
    numbers = 2 * 8 * ROWS
    assert sum(memoryview(one).nbytes for one in buffers) >= numbers
    # Texts of pandas may be Python's: those are pickled one by one.
    assert len(payload) < numbers
