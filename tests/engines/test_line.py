"""What the conductor says to one worker, and when it looks for answers."""

from __future__ import annotations

import select
from types import SimpleNamespace

import pytest

from offloop.engines.line import Line
from offloop.wire.channel import Channel, make_context


@pytest.fixture
def ends(tmp_path):
    """Yield the two ends of a channel that is connected."""
    context = make_context()
    parent, worker = Channel(context), Channel(context)
    parent.bind(str(tmp_path / "socket"))
    worker.connect(str(tmp_path / "socket"))
    worker.send(("here",))
    assert parent.receive() == ("here",)
    yield parent, worker
    parent.close()
    worker.close()
    context.term()


def test_many_things_said_lead_to_one_look(ends):
    parent, worker = ends
    looks = []
    line = Line(SimpleNamespace(channel=parent), SimpleNamespace(), looks.append)
    line.send(("first",))
    assert looks == [], "there is nothing to read"
    worker.send(("answer",))
    while not parent.wants_reading():
        assert select.select([parent.fd], [], [], 5.0)[0]
    for _ in range(3):
        line.send(("more",))
    assert looks == [line], "each look may lead to sending, and that to looks"
    line.looks = False  # as it looks
    line.send(("again",))
    assert looks == [line, line]
