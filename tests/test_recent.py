"""What those see who watch: the latest events, and not more than there is room for."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from offloop import recent
from offloop.recent import Recent
from offloop.telemetry import events
from offloop.telemetry.events import Listeners


async def test_a_flood_of_events_is_cut_and_their_numbers_tell_it():
    listeners = Listeners("flood")
    seen = Recent(listeners, "flood")
    assert seen.look(0)["events"] == []
    for number in range(200):
        listeners.tell(
            *(events.JobRefused,),
            function=f"f{number}" * 200,
            pending=1,
            limit=1,
            retry_after=None,
        )
    await asyncio.sleep(0)
    kept = seen.look(0)["events"]
    # They may have come in two seconds.
    assert 50 <= len(kept) <= 100
    assert kept[0]["number"] == 1
    assert kept[0]["text"].startswith("job refused: function f0f0")
    assert len(kept[0]["text"]) == 400
    assert seen.look(kept[10]["number"])["events"] == kept[11:]
    seen.close()
    assert listeners.heard == {}


async def test_the_lag_of_each_second_is_its_largest(monkeypatch):
    monkeypatch.setattr(recent, "_BEAT", 0.0)
    seen = Recent(Listeners("late"), "late")
    second = 100.0
    clock = SimpleNamespace(monotonic=lambda: second)
    monkeypatch.setattr(recent, "time", clock)
    seen.look(0)
    for tardy in ((0.5, 2.0, 1.0), (0.25,)):
        for late in tardy:
            seen._due = seen._loop.time() - late
            seen._timer.cancel()
            seen._beat()
        second += 1
    told = seen.look(0)["lag"]
    assert len(told) == 2
    assert told[0] >= 2.0
    assert 0.25 <= told[1] < told[0]
    seen.close()
