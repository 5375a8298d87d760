"""Children that stand by for whoever dies."""

from __future__ import annotations

from math import inf

from offloop.core.children import SupervisionState
from offloop.core.commands import EmployChild, GiveUp, RetireChild, StartChild
from offloop.core.exits import Exit, ExitReason
from offloop.core.spares import NO_SLOT
from offloop.core.supervision import Supervision

RELOADED = ExitReason.RELOADED


def whole(spares=1, **options):
    """Return supervision of one worker, 1, whose spares, from 2 on, stand by."""
    supervision = Supervision(spares=spares, **options)
    assert supervision.scale_asked(1, 10.0) == [StartChild(0, 1)]
    started = supervision.child_ready(1, 11.0)
    assert started[0] == EmployChild(1)
    numbers = range(2, 2 + spares)
    assert started[1:] == [StartChild(NO_SLOT, number) for number in numbers]
    for number in numbers:
        assert supervision.child_ready(number, 12.0) == []
    supervision.check()
    return supervision


def test_a_spare_works_at_once_when_a_worker_dies():
    supervision = whole()
    commands = supervision.child_exited(1, Exit.UNASKED, "SIGKILL", 20.0)
    assert commands == [EmployChild(2), StartChild(NO_SLOT, 3)]
    supervision.check()
    assert supervision.works(2)
    assert (supervision.slot_of(2), supervision.slot_of(3)) == (0, -1)
    # The next death comes while no spare is there: the slot waits for its own start.
    (start,) = supervision.child_exited(2, Exit.BLAMED, "SIGSEGV", 20.1)
    assert start == StartChild(0, 4)
    supervision.check()


def test_a_slot_that_waits_after_deaths_takes_a_spare_that_gets_ready():
    supervision = whole()
    supervision.child_exited(1, Exit.UNASKED, "SIGKILL", 20.0)
    assert supervision.child_exited(2, Exit.UNASKED, "SIGKILL", 20.1) == []
    assert supervision.stats().waiting == 1
    commands = supervision.child_ready(3, 20.1)
    assert commands == [EmployChild(3), StartChild(NO_SLOT, 4)]
    supervision.check()
    assert supervision.stats().waiting == 0


def test_a_used_up_worker_and_a_new_place_take_one_too():
    supervision = whole(2)
    commands = supervision.child_spent(1, ExitReason.RECYCLED_MEMORY, 20.0)
    gone = RetireChild(1, ExitReason.RECYCLED_MEMORY)
    assert commands == [gone, EmployChild(2), StartChild(NO_SLOT, 4)]
    assert supervision.scale_asked(2, 20.0)[0] == EmployChild(3)
    supervision.check()


def test_spares_that_die_are_replaced_later_and_later():
    supervision = whole()
    supervision.child_exited(2, Exit.UNASKED, "SIGKILL", 20.0)  # the first: at once
    supervision.child_exited(3, Exit.UNASKED, "SIGKILL", 20.0)  # never was ready
    due = supervision.next_due()
    assert 20.0 < due < 21.0
    assert supervision.time_passed(due) == [StartChild(NO_SLOT, 4)]
    assert supervision.child_exited(4, Exit.WANTED, "asked", due) == [
        StartChild(NO_SLOT, 5)
    ]
    supervision.check()


def test_spares_count_for_the_budget_and_work_when_it_is_spent():
    supervision = whole(2, max_restarts=0)
    first, second = supervision.child_exited(1, Exit.UNASKED, "SIGKILL", 20.0)
    assert isinstance(first, GiveUp)
    assert second == EmployChild(2)
    supervision.check()
    assert supervision.state is SupervisionState.FAILED
    assert supervision.child_exited(2, Exit.WANTED, "asked", 21.0) == [EmployChild(3)]
    supervision.check()
    recovered = supervision.cause_removed(22.0)
    assert recovered == [StartChild(NO_SLOT, 4), StartChild(NO_SLOT, 5)]


def test_a_spare_that_gets_ready_mends_a_pool_that_failed():
    supervision = whole(max_restarts=0)
    supervision.child_exited(2, Exit.UNASKED, "SIGKILL", 20.0)
    assert supervision.state is SupervisionState.FAILED
    assert supervision.cause_removed(21.0) == [StartChild(NO_SLOT, 3)]
    supervision.child_exited(1, Exit.UNASKED, "SIGKILL", 22.0)
    assert supervision.state is SupervisionState.FAILED
    assert supervision.child_ready(3, 23.0)[0] == EmployChild(3)
    assert supervision.state is SupervisionState.RUNNING
    supervision.check()


def test_outdated_spares_are_replaced_and_none_outlives_the_pool():
    supervision = whole()
    commands = supervision.spares_outdated(RELOADED, 20.0)
    assert commands == [RetireChild(2, RELOADED), StartChild(NO_SLOT, 3)]
    supervision.check()
    supervision.child_ready(3, 21.0)
    commands = supervision.stop_asked(inf, 22.0)
    shutdown = ExitReason.SHUTDOWN
    assert commands == [RetireChild(1, shutdown), RetireChild(3, shutdown)]
    for child in (1, 2, 3):
        assert supervision.child_exited(child, Exit.WANTED, "left", 23.0) == []
    assert supervision.stopped
    assert supervision.next_due() is None
