"""Facts in, commands out: one behaviour of supervision per test."""

from __future__ import annotations

import dataclasses
import itertools
from math import inf

import pytest

from offloop.core.commands import (
    GiveUp,
    KillChild,
    RetireChild,
    StartChild,
    TerminateChild,
)
from offloop.core.supervision import (
    CHILD_MOVES,
    ChildRecord,
    ChildState,
    Exit,
    Supervision,
    SupervisionState,
)
from offloop.errors import InternalError

CRASH = Exit.UNASKED


class Machine:
    """Supervision with a clock that stands still; each call is a fact, told now."""

    def __init__(self, children: int = 0, *, ready: bool = True, **options) -> None:
        self.supervision = Supervision(**options)
        self.now = 100.0
        started = self.scale_asked(children)
        if ready:
            for command in started:
                assert self.child_ready(command.child) == []

    def __getattr__(self, fact):
        def tell(*args):
            commands = getattr(self.supervision, fact)(*args, self.now)
            self.supervision.check()
            return commands

        return tell

    def crash(self, child: int, reason: str = "SIGSEGV"):
        return self.child_exited(child, CRASH, reason)

    def wait(self, seconds: float):
        self.now += seconds
        return self.time_passed()

    def wait_due(self):
        """Let the time come at which something is due next."""
        self.now = self.supervision.next_due()
        return self.time_passed()

    def start(self, commands) -> int:
        """Return the number of the only child that was to be started."""
        (command,) = commands
        assert isinstance(command, StartChild)
        return command.child

    def fail(self) -> None:
        """Let a pool of two slots give up, because of the second one."""
        child = 2
        while not self.gave_up(said := self.crash(child)):
            child = self.start(said or self.wait_due())
            self.child_ready(child)

    def gave_up(self, commands) -> bool:
        return any(isinstance(command, GiveUp) for command in commands)

    @property
    def stats(self):
        return self.supervision.stats()


PAIRS = list(itertools.product(ChildState, ChildState))


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_a_child_moves_along_the_table_only(before, after):
    child = ChildRecord(1, 0, 0.0)
    child.state = before
    if after in CHILD_MOVES[before]:
        child.move(after, 1.0)
        assert child.state is after
    else:
        with pytest.raises(InternalError, match=f"from {before.name} to {after.name}"):
            child.move(after, 1.0)


# Starting and scaling


def test_each_slot_gets_a_child():
    machine = Machine()
    assert machine.scale_asked(3) == [
        StartChild(0, 1),
        StartChild(1, 2),
        StartChild(2, 3),
    ]
    assert (machine.stats.target, machine.stats.starting) == (3, 3)


def test_scaling_to_the_same_number_does_nothing():
    assert Machine(3).scale_asked(3) == []


def test_scaling_up_adds_slots():
    assert Machine(2).scale_asked(4) == [StartChild(2, 3), StartChild(3, 4)]


def test_scaling_down_retires_the_last_ones():
    machine = Machine(3)
    assert machine.scale_asked(1) == [RetireChild(2), RetireChild(3)]
    assert machine.child_exited(2, CRASH, "exit code 1") == [], "nobody misses it"
    assert machine.child_exited(3, Exit.WANTED, "exit code 0") == []
    assert machine.stats.target == machine.stats.ready == 1


def test_scaling_down_terminates_what_is_not_ready():
    machine = Machine(2, ready=False)
    assert machine.scale_asked(1) == [TerminateChild(2)]
    assert machine.child_ready(2) == [], "the word was on its way"
    assert machine.child_exited(2, CRASH, "SIGTERM") == []


def test_scaling_down_forgets_a_start_that_was_due():
    machine = Machine(2, ready=False)
    machine.child_ready(1)
    assert machine.crash(2) == []
    assert machine.stats.waiting == 1
    machine.scale_asked(1)
    assert machine.supervision.next_due() is None


def test_a_slot_that_comes_back_does_not_wait_for_its_old_child():
    machine = Machine(2)
    assert machine.scale_asked(1) == [RetireChild(2)]
    assert machine.scale_asked(2) == [StartChild(1, 3)]
    assert machine.child_exited(2, Exit.WANTED, "exit code 0") == []


def test_a_child_that_does_not_get_ready_in_time_is_killed():
    machine = Machine(1, ready=False, boot_timeout=60.0)
    assert machine.supervision.next_due() == machine.now + 60.0
    assert machine.wait(59.0) == []
    assert machine.wait(1.0) == [KillChild(1)]
    assert machine.wait(3600.0) == []
    (command,) = machine.child_exited(1, Exit.WANTED, "SIGKILL")
    assert isinstance(command, GiveUp), "killed by us, but a failure all the same"


def test_a_ready_child_has_no_time_limit():
    machine = Machine(1)
    assert machine.supervision.next_due() is None


def test_a_child_that_refuses_to_leave_is_killed():
    machine = Machine(1, ready=False, grace=2.0)
    machine.scale_asked(0)
    assert machine.wait(2.0) == [KillChild(1)]
    assert machine.child_exited(1, CRASH, "SIGKILL") == []


# Replacing


def test_the_first_death_is_mended_at_once():
    machine = Machine(2)
    assert machine.crash(1) == [StartChild(0, 3)]
    assert machine.stats.deaths == 1


def test_the_next_deaths_are_mended_after_growing_delays():
    machine = Machine(1, max_restarts=100, period=1e6)
    child = machine.start(machine.crash(1))
    limit = 0.1
    for _ in range(6):
        machine.child_ready(child)
        assert machine.crash(child) == []
        delay = machine.supervision.next_due() - machine.now
        assert 0.0 < delay < limit
        limit *= 2
        child = machine.start(machine.wait_due())


def test_proven_health_makes_a_death_the_first_one_again():
    machine = Machine(1, health=10.0)
    child = machine.start(machine.crash(1))
    machine.child_ready(child)
    machine.now += 10.0
    machine.start(machine.crash(child))


def test_short_lives_are_no_proof_of_health():
    machine = Machine(1, health=10.0)
    child = machine.start(machine.crash(1))
    machine.child_ready(child)
    machine.now += 9.0
    assert machine.crash(child) == []


def test_slots_back_off_each_for_itself():
    machine = Machine(2)
    child = machine.start(machine.crash(1))
    machine.child_ready(child)
    machine.crash(child)
    machine.start(machine.crash(2))


@pytest.mark.parametrize("exit", [Exit.WANTED, Exit.BLAMED])
def test_deaths_that_are_explained_are_mended_at_once_and_not_counted(exit):
    machine = Machine(1, max_restarts=3)
    child = 1
    for _ in range(50):
        child = machine.start(machine.child_exited(child, exit, "SIGKILL"))
        machine.child_ready(child)
    assert machine.stats.deaths == 0


def test_a_child_that_is_killed_on_purpose_while_it_starts_is_replaced():
    machine = Machine(1, ready=False)
    machine.start(machine.child_exited(1, Exit.WANTED, "SIGKILL"))


def test_a_child_that_dies_before_it_is_ready_is_mended_after_a_delay():
    machine = Machine(2)
    child = machine.start(machine.crash(1))
    assert machine.crash(child) == []
    assert 0.0 < machine.supervision.next_due() - machine.now < 0.2
    machine.start(machine.wait_due())


# Giving up


def test_when_no_child_can_start_it_gives_up_at_once():
    machine = Machine(2, ready=False)
    assert machine.crash(1, "ImportError: nope") == [
        GiveUp("no process could start: ImportError: nope")
    ]
    assert machine.stats.state is SupervisionState.FAILED


def test_it_says_so_once():
    machine = Machine(3, ready=False)
    machine.crash(1)
    assert machine.crash(2) == []
    assert machine.crash(3) == []


def test_too_many_deaths_in_a_period_are_not_mended_any_more():
    machine = Machine(2, max_restarts=5, period=30.0)
    machine.fail()
    assert machine.stats.deaths == 6
    assert machine.stats.ready == 1, "what lives is kept"
    assert machine.stats.waiting == 0


def test_the_reason_tells_the_number_and_the_last_death():
    machine = Machine(1, max_restarts=0)
    assert machine.crash(1, "SIGSEGV") == [
        GiveUp("unasked deaths within 30 s: 1; the last one: SIGSEGV")
    ]


def test_by_default_twice_as_many_deaths_as_slots_are_mended():
    machine = Machine(10)
    for child in range(1, 11):
        machine.start(machine.crash(child))
    for child in range(11, 21):
        machine.child_ready(child)
        assert machine.crash(child) == []
    child = machine.start(machine.wait_due())
    machine.child_ready(child)
    (command,) = machine.crash(child)
    assert isinstance(command, GiveUp)
    assert machine.stats.deaths == 21


def test_deaths_that_are_far_apart_are_mended_for_ever():
    machine = Machine(1, period=30.0)
    child = 1
    for _ in range(50):
        machine.now += 30.0
        child = machine.start(machine.crash(child))
        machine.child_ready(child)


def test_a_failed_pool_tries_one_child_after_a_cool_down():
    machine = Machine(3, ready=False, cool_down=60.0)
    for child in (1, 2, 3):
        machine.crash(child)
    assert machine.wait(59.0) == []
    child = machine.start(machine.wait(1.0))
    assert machine.stats.state is SupervisionState.FAILED
    assert machine.child_ready(child) == [StartChild(1, 5), StartChild(2, 6)]
    assert machine.stats.state is SupervisionState.RUNNING


def test_a_try_that_fails_is_followed_by_another_cool_down():
    machine = Machine(1, ready=False, cool_down=60.0)
    machine.crash(1)
    child = machine.start(machine.wait(60.0))
    (command,) = machine.crash(child, "ImportError again")
    assert isinstance(command, GiveUp)
    assert machine.wait(59.0) == []
    machine.start(machine.wait(1.0))


def test_a_try_that_is_killed_on_purpose_is_followed_by_another_at_once():
    machine = Machine(1, ready=False, cool_down=60.0)
    machine.crash(1)
    child = machine.start(machine.wait(60.0))
    machine.start(machine.child_exited(child, Exit.WANTED, "SIGKILL"))
    assert machine.stats.state is SupervisionState.FAILED


def test_a_try_that_does_not_get_ready_in_time_is_followed_by_a_cool_down():
    machine = Machine(2, ready=False, boot_timeout=60.0, cool_down=60.0)
    machine.crash(1)
    machine.crash(2)
    child = machine.start(machine.wait(60.0))
    assert machine.wait(60.0) == [KillChild(child)]
    assert machine.scale_asked(3) == [], "one at a time"
    (command,) = machine.child_exited(child, Exit.WANTED, "SIGKILL")
    assert isinstance(command, GiveUp)
    machine.start(machine.wait(60.0))


def test_a_try_of_a_pool_that_worked_once_fails_by_a_single_death():
    machine = Machine(2)
    machine.fail()
    child = machine.start(machine.wait(60.0))
    (command,) = machine.crash(child)
    assert isinstance(command, GiveUp)
    assert "deaths within 30 s: 1" in command.reason


def test_a_failed_pool_does_not_replace_what_dies():
    machine = Machine(2)
    machine.fail()
    assert machine.crash(1) == []
    assert machine.stats.ready == 0


def test_a_sibling_that_gets_ready_late_mends_a_failed_pool():
    machine = Machine(2, ready=False)
    machine.crash(1)
    assert machine.child_ready(2) == [StartChild(0, 3)]
    assert machine.supervision.next_due() == machine.now + 60.0, "of the new child"


def test_recovery_forgets_old_deaths():
    machine = Machine(2, max_restarts=5)
    machine.fail()
    child = machine.start(machine.wait(60.0))
    machine.child_ready(child)
    machine.now += 20.0
    machine.start(machine.crash(child))


def test_a_failed_pool_without_an_empty_slot_recovers_after_the_cool_down():
    machine = Machine(2)
    machine.fail()
    machine.scale_asked(1)
    assert machine.stats.state is SupervisionState.FAILED
    assert machine.wait(60.0) == []
    assert machine.stats.state is SupervisionState.RUNNING


def test_scaling_up_a_failed_pool_waits_for_the_cool_down():
    machine = Machine(2)
    machine.fail()
    assert machine.scale_asked(4) == []
    child = machine.start(machine.wait(60.0))
    assert len(machine.child_ready(child)) == 2


def test_scaling_away_the_child_that_is_tried_goes_on_with_another():
    machine = Machine(2, ready=False, cool_down=60.0)
    machine.crash(1)
    machine.crash(2)
    child = machine.start(machine.wait(60.0))
    assert machine.scale_asked(0) == [TerminateChild(child)]
    assert machine.stats.state is SupervisionState.RUNNING, "nothing is missing now"
    machine.child_exited(child, CRASH, "SIGTERM")
    machine.start(machine.scale_asked(1))


def test_scaling_while_a_child_is_tried_starts_no_second_one():
    machine = Machine(1, ready=False, cool_down=60.0)
    machine.crash(1)
    child = machine.start(machine.wait(60.0))
    assert machine.scale_asked(3) == []
    assert len(machine.child_ready(child)) == 2


# Recycling


def test_a_child_is_replaced_before_it_retires():
    machine = Machine(2)
    assert machine.child_retire_asked(1) == [StartChild(0, 3)]
    assert machine.stats.ready == 2
    assert machine.child_ready(3) == [RetireChild(1)]
    assert machine.stats.ready == 2
    assert machine.child_exited(1, Exit.WANTED, "exit code 0") == []


def test_it_is_replaced_once():
    machine = Machine(1)
    machine.child_retire_asked(1)
    assert machine.child_retire_asked(1) == []
    assert machine.child_retire_asked(2) == [], "it only starts"


def test_the_old_one_may_die_before_the_new_one_is_ready():
    machine = Machine(1)
    machine.child_retire_asked(1)
    assert machine.child_exited(1, Exit.WANTED, "SIGKILL") == []
    assert machine.child_ready(2) == []
    assert machine.stats.ready == 1
    machine.start(machine.child_retire_asked(2))


def test_a_new_one_that_fails_is_started_again_while_the_old_one_works():
    machine = Machine(1)
    machine.child_retire_asked(1)
    assert machine.crash(2) == []
    assert machine.stats.ready == 1
    child = machine.start(machine.wait_due())
    assert machine.child_ready(child) == [RetireChild(1)]


def test_a_death_of_the_old_one_does_not_shorten_the_delay_of_the_new_one():
    machine = Machine(1)
    machine.child_retire_asked(1)
    machine.crash(2)
    assert machine.child_exited(1, Exit.WANTED, "SIGKILL") == []
    machine.start(machine.wait_due())


def test_a_failed_pool_does_not_recycle():
    machine = Machine(2)
    machine.fail()
    assert machine.child_retire_asked(1) == []


def test_a_child_that_is_leaving_is_not_recycled():
    machine = Machine(2)
    machine.scale_asked(1)
    assert machine.child_retire_asked(2) == []


def test_scaling_away_a_slot_lets_both_of_its_children_go():
    machine = Machine(1)
    machine.child_retire_asked(1)
    assert machine.scale_asked(0) == [TerminateChild(2), RetireChild(1)]


def test_a_replacement_that_was_due_is_made_when_a_failed_pool_recovers():
    machine = Machine(2, max_restarts=1)
    machine.child_retire_asked(1)
    machine.crash(3)
    assert machine.stats.waiting == 1
    machine.fail()
    assert machine.stats.waiting == 0
    child = machine.start(machine.wait(60.0))
    assert machine.child_ready(child) == [StartChild(0, child + 1)]


# Stopping


def test_stopping_retires_what_is_ready_and_terminates_the_rest():
    machine = Machine(2)
    machine.crash(2)
    assert machine.stop_asked(inf) == [RetireChild(1), TerminateChild(3)]
    assert not machine.supervision.stopped
    machine.child_exited(3, CRASH, "SIGTERM")
    assert machine.child_exited(1, CRASH, "exit code 0") == []
    assert machine.supervision.stopped
    assert machine.supervision.next_due() is None


def test_a_pool_without_children_has_stopped_at_once():
    machine = Machine()
    machine.stop_asked(inf)
    assert machine.supervision.stopped


def test_at_the_deadline_everyone_is_terminated_then_killed():
    machine = Machine(2, grace=2.0)
    machine.stop_asked(machine.now + 30.0)
    assert machine.wait(29.0) == []
    assert machine.wait(1.0) == [TerminateChild(1), TerminateChild(2)]
    machine.child_exited(2, CRASH, "SIGTERM")
    assert machine.wait(2.0) == [KillChild(1)]
    assert machine.wait(3600.0) == []


def test_a_deadline_that_has_passed_leaves_no_time():
    machine = Machine(1)
    assert machine.stop_asked(machine.now) == [RetireChild(1), TerminateChild(1)]


def test_stopping_may_be_asked_again_with_less_patience():
    machine = Machine(1)
    machine.stop_asked(inf)
    assert machine.stop_asked(machine.now) == [TerminateChild(1)]
    assert machine.stop_asked(machine.now) == []


def test_a_stopping_pool_starts_nothing():
    machine = Machine(2)
    child = machine.start(machine.crash(1))
    machine.child_ready(child)
    machine.crash(child)
    machine.stop_asked(inf)
    assert machine.scale_asked(5) == []
    assert machine.child_retire_asked(2) == []
    assert machine.crash(2) == []
    assert machine.wait(3600.0) == []
    assert machine.supervision.stopped


def test_a_failed_pool_that_is_stopped_tries_nothing_any_more():
    machine = Machine(1, ready=False)
    machine.crash(1)
    machine.stop_asked(inf)
    assert machine.supervision.next_due() is None
    assert machine.supervision.stopped


# Questions


def test_stats_count_everything_once():
    machine = Machine(3)
    machine.scale_asked(2)
    machine.crash(1)
    seen = dataclasses.asdict(machine.stats)
    assert seen == {
        "state": SupervisionState.RUNNING,
        "target": 2,
        "starting": 1,
        "ready": 1,
        "retiring": 1,
        "stopping": 0,
        "waiting": 0,
        "started": 4,
        "deaths": 1,
    }


def test_the_story_of_a_child_tells_its_moves():
    machine = Machine(1)
    assert "child 1 of slot 0: 100.000 starting; 100.000 ready" in (
        machine.supervision.story(1)
    )
    machine.crash(1, "SIGSEGV")
    assert machine.supervision.story(1).endswith("gone: SIGSEGV")


def test_stories_are_found_behind_later_ones():
    machine = Machine(2)
    machine.crash(1)
    machine.crash(2)
    assert "child 1 of slot 0" in machine.supervision.story(1)


def test_a_child_that_nobody_remembers_has_a_story_too():
    assert "child 9 is not known" in Machine().supervision.story(9)


def test_an_unknown_child_is_a_bug():
    machine = Machine(1)
    for fact, args in [
        ("child_ready", (9,)),
        ("child_retire_asked", (9,)),
        ("child_exited", (9, CRASH, "exit")),
    ]:
        with pytest.raises(InternalError, match="child 9 is not known"):
            getattr(machine, fact)(*args)


def test_getting_ready_twice_is_a_bug():
    machine = Machine(1)
    with pytest.raises(InternalError, match="from READY to READY"):
        machine.child_ready(1)
