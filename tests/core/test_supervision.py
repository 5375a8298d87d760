"""Facts in, commands out: one behaviour of supervision per test."""

from __future__ import annotations

import dataclasses
import itertools
from math import inf

import pytest

from offloop.core.children import (
    CHILD_MOVES,
    ChildRecord,
    ChildState,
    SupervisionState,
)
from offloop.core.commands import (
    EmployChild,
    GiveUp,
    KillChild,
    RetireChild,
    StartChild,
    TerminateChild,
)
from offloop.core.exits import Exit, ExitReason
from offloop.core.recycling import Allowance
from offloop.core.supervision import Supervision
from offloop.errors import InternalError
from offloop.options import Recycle

CRASH = Exit.UNASKED
SHRINK = ExitReason.SCALED_DOWN
SHUTDOWN = ExitReason.SHUTDOWN
OLD = ExitReason.RECYCLED_AGE
JOBS = ExitReason.RECYCLED_JOBS
MEMORY = ExitReason.RECYCLED_MEMORY


class Machine:
    """Supervision with a clock that stands still; each call is a fact, told now.

    Who gets work is noted in `working`; calls return the other commands.
    """

    def __init__(self, children: int = 0, *, ready: bool = True, **options) -> None:
        self.supervision = Supervision(**options)
        self.working: set[int] = set()
        self.now = 100.0
        started = self.scale_asked(children)
        if ready:
            for command in started:
                assert self.child_ready(command.child) == []

    def __getattr__(self, fact):
        def tell(*args):
            commands = getattr(self.supervision, fact)(*args, self.now)
            self.supervision.check()
            return [command for command in commands if not self.note(command)]

        return tell

    def note(self, command) -> bool:
        """Note who gets work or gets none any more; True if that is all there is."""
        if isinstance(command, EmployChild):
            assert command.child not in self.working
            self.working.add(command.child)
        elif isinstance(command, RetireChild):
            self.working.discard(command.child)
        return isinstance(command, EmployChild)

    def retire(self, child: int):
        return self.child_retire_asked(child, OLD)

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
    child = ChildRecord(1, 0, Allowance(), 0.0)
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
    assert machine.scale_asked(1) == [RetireChild(2, SHRINK), RetireChild(3, SHRINK)]
    assert machine.child_exited(2, CRASH, "exit code 1") == [], "nobody misses it"
    assert machine.child_exited(3, Exit.WANTED, "exit code 0") == []
    assert machine.stats.target == machine.stats.ready == 1


def test_scaling_down_terminates_what_is_not_ready():
    machine = Machine(2, ready=False)
    assert machine.scale_asked(1) == [TerminateChild(2, SHRINK)]
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
    assert machine.scale_asked(1) == [RetireChild(2, SHRINK)]
    assert machine.scale_asked(2) == [StartChild(1, 3)]
    assert machine.child_exited(2, Exit.WANTED, "exit code 0") == []


class Shrinking:
    """Three children, of which one was replaced."""

    def __init__(self) -> None:
        self.machine = Machine(3)

    def shrink(self, count, *first):
        supervision, now = self.machine.supervision, self.machine.now
        commands = supervision.scale_asked(count, now, first)
        supervision.check()
        return [command.child for command in commands]


def test_scaling_down_lets_those_go_first_that_are_named():
    assert Shrinking().shrink(1, 1, 2) == [2, 1]
    assert Shrinking().shrink(2, 1, 2) == [1], "as many as there are too many"
    assert Shrinking().shrink(2, 3) == [3]
    assert Shrinking().shrink(4, 3) == [4], "nobody goes"


def test_slots_that_were_moved_work_as_before():
    pool = Shrinking()
    pool.shrink(2, 1)
    machine = pool.machine
    assert machine.crash(3) == [StartChild(0, 4)]
    assert machine.crash(2) == [StartChild(1, 5)]
    assert machine.child_exited(1, Exit.WANTED, "exit code 0") == []


def test_who_is_gone_or_waits_for_a_start_is_not_moved():
    pool = Shrinking()
    machine = pool.machine
    machine.child_ready(machine.start(machine.crash(3)))
    machine.crash(4)
    assert machine.stats.waiting == 1
    assert pool.shrink(2, 4, 99, 1) == [], "the one that waits is not missed"
    assert machine.stats.waiting == 0
    assert pool.shrink(1, 1) == [1]


def test_a_slot_that_waits_for_a_successor_stays_where_it_is():
    pool = Shrinking()
    machine = pool.machine
    machine.crash(machine.start(machine.retire(1)))
    assert machine.stats.waiting == 1
    assert pool.shrink(2, 1) == [3]
    successor = machine.start(machine.wait_due())
    assert machine.child_ready(successor) == [RetireChild(1, OLD)]


def test_a_child_that_does_not_get_ready_in_time_is_killed():
    machine = Machine(1, ready=False, boot_timeout=60.0)
    assert machine.supervision.next_due() == machine.now + 60.0
    assert machine.wait(59.0) == []
    assert machine.wait(1.0) == [KillChild(1, ExitReason.START_FAILED)]
    assert machine.wait(3600.0) == []
    (command,) = machine.child_exited(1, Exit.WANTED, "SIGKILL")
    assert isinstance(command, GiveUp), "killed by us, but a failure all the same"


def test_a_ready_child_has_no_time_limit():
    machine = Machine(1)
    assert machine.supervision.next_due() is None


def test_a_child_that_refuses_to_leave_is_killed():
    machine = Machine(1, ready=False, grace=2.0)
    machine.scale_asked(0)
    assert machine.wait(2.0) == [KillChild(1, SHUTDOWN)]
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


def test_health_is_judged_by_the_end_and_not_by_when_that_was_heard():
    """A shell that was held up for a minute hears late of a life that was short."""
    machine = Machine(1, health=10.0)
    child = machine.start(machine.crash(1))
    machine.child_ready(child)
    exited = machine.supervision.child_exited
    ended = machine.now + 0.3
    assert exited(child, CRASH, "SIGSEGV", machine.now + 60.0, ended) == []


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


def test_slots_that_die_in_turns_cannot_hide():
    """No slot has died more than three times, and has always waited between."""
    machine = Machine(2, max_restarts=5, period=30.0)
    children = [1, 2]
    for death in range(6):
        slot = death % 2
        commands = machine.crash(children[slot])
        if death < 5:
            children[slot] = machine.start(commands or machine.wait_due())
            machine.child_ready(children[slot])
    assert machine.gave_up(commands)
    assert machine.stats.started == 2 + 5


@pytest.mark.parametrize("life", [0.0, 0.05, 0.6, 1.2, 3.0])
@pytest.mark.parametrize("slots", [1, 8])
def test_a_crash_loop_starts_no_more_than_its_budget(life, slots):
    """All slots die as soon as they can; each minute a pool that failed tries again."""
    machine = Machine(slots)
    dies_at = dict.fromkeys(range(1, slots + 1), machine.now + life)
    began = machine.now
    while machine.now < began + 600.0:
        due = machine.supervision.next_due()
        machine.now = min([*dies_at.values(), *([] if due is None else [due])])
        commands = machine.time_passed()
        for child in [one for one, when in dies_at.items() if when <= machine.now]:
            del dies_at[child]
            commands += machine.crash(child)
        for command in commands:
            if isinstance(command, StartChild):
                machine.child_ready(command.child)
                dies_at[command.child] = machine.now + life
    budget = max(5, 2 * slots)
    stats = machine.stats
    assert stats.started <= slots + 11 * (budget + slots)
    assert stats.started > slots


def test_lives_that_prove_health_are_mended_for_ever_and_at_a_slow_pace():
    """A life of 11 s: at most three deaths within the period, below any budget."""
    machine = Machine(1)
    child = 1
    for _ in range(50):
        machine.now += 11.0
        child = machine.start(machine.crash(child))
        machine.child_ready(child)
    assert machine.stats.state is SupervisionState.RUNNING


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
    assert machine.wait(60.0) == [KillChild(child, ExitReason.START_FAILED)]
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
    assert machine.scale_asked(0) == [TerminateChild(child, SHRINK)]
    assert machine.stats.state is SupervisionState.RUNNING, "nothing is missing now"
    machine.child_exited(child, CRASH, "SIGTERM")
    machine.start(machine.scale_asked(1))


def test_scaling_while_a_child_is_tried_starts_no_second_one():
    machine = Machine(1, ready=False, cool_down=60.0)
    machine.crash(1)
    child = machine.start(machine.wait(60.0))
    assert machine.scale_asked(3) == []
    assert len(machine.child_ready(child)) == 2


def test_a_failed_pool_whose_cause_is_removed_begins_anew_at_once():
    machine = Machine(2, ready=False)
    machine.crash(1)
    machine.crash(2)
    assert machine.cause_removed() == [StartChild(0, 3), StartChild(1, 4)]
    assert machine.cause_removed() == [], "nothing to begin anew"


def test_who_works_can_be_asked():
    machine = Machine(2)
    machine.scale_asked(1)
    assert [machine.supervision.works(child) for child in (1, 2, 3)] == [
        True,
        False,
        False,
    ]


# Recycling


def test_a_child_is_replaced_before_it_retires():
    machine = Machine(2)
    assert machine.retire(1) == [StartChild(0, 3)]
    assert machine.stats.ready == 2
    assert machine.child_ready(3) == [RetireChild(1, OLD)]
    assert machine.stats.ready == 2
    assert machine.child_exited(1, Exit.WANTED, "exit code 0") == []


def test_it_is_replaced_once():
    machine = Machine(1)
    machine.retire(1)
    assert machine.retire(1) == []
    assert machine.retire(2) == [], "it only starts"


def test_the_old_one_may_die_before_the_new_one_is_ready():
    machine = Machine(1)
    machine.retire(1)
    assert machine.child_exited(1, Exit.WANTED, "SIGKILL") == []
    assert machine.child_ready(2) == []
    assert machine.stats.ready == 1
    machine.start(machine.retire(2))


def test_a_new_one_that_fails_is_started_again_while_the_old_one_works():
    machine = Machine(1)
    machine.retire(1)
    assert machine.crash(2) == []
    assert machine.stats.ready == 1
    child = machine.start(machine.wait_due())
    assert machine.child_ready(child) == [RetireChild(1, OLD)]


def test_a_death_of_the_old_one_does_not_shorten_the_delay_of_the_new_one():
    machine = Machine(1)
    machine.retire(1)
    machine.crash(2)
    assert machine.child_exited(1, Exit.WANTED, "SIGKILL") == []
    machine.start(machine.wait_due())


def test_a_failed_pool_does_not_recycle():
    machine = Machine(2)
    machine.fail()
    assert machine.retire(1) == []


def test_a_child_that_is_leaving_is_not_recycled():
    machine = Machine(2)
    machine.scale_asked(1)
    assert machine.retire(2) == []


def test_scaling_away_a_slot_lets_both_of_its_children_go():
    machine = Machine(1)
    machine.retire(1)
    assert machine.scale_asked(0) == [TerminateChild(2, SHRINK), RetireChild(1, SHRINK)]


def test_a_replacement_that_was_due_is_made_when_a_failed_pool_recovers():
    machine = Machine(2, max_restarts=1)
    machine.retire(1)
    machine.crash(3)
    assert machine.stats.waiting == 1
    machine.fail()
    assert machine.stats.waiting == 0
    child = machine.start(machine.wait(60.0))
    assert machine.child_ready(child) == [StartChild(0, child + 1)]


def recycled(machine, child, reason=MEMORY):
    """Tell that a child is used up; returns what is to be done."""
    return machine.child_spent(child, reason)


def test_limits_are_drawn_at_birth_and_only_lowered():
    recycle = Recycle(max_jobs=1000, max_rss=10**9, jitter=0.2)
    commands = Machine(0, recycle=recycle).scale_asked(50)
    jobs = {command.max_jobs for command in commands}
    sizes = {command.max_rss for command in commands}
    assert all(800 <= n <= 1000 for n in jobs)
    assert all(8 * 10**8 <= n <= 10**9 for n in sizes)
    assert len(jobs) > 40
    assert len(sizes) > 40


def test_without_jitter_limits_are_what_was_asked_for():
    recycle = Recycle(max_jobs=10, max_rss=10**6, jitter=0.0)
    assert Machine(0, recycle=recycle).scale_asked(1) == [
        StartChild(0, 1, max_jobs=10, max_rss=10**6)
    ]


def test_a_limit_of_one_job_stays_one():
    recycle = Recycle(max_jobs=1, jitter=0.9)
    (command,) = Machine(0, recycle=recycle).scale_asked(1)
    assert command.max_jobs == 1


def wear(machine, child, jobs):
    """Let a child have run so many jobs in no time; returns what is to be done."""
    machine.now += 0.01
    commands = machine.child_used(child, jobs - 1, 0)
    machine.now += 0.0001
    return commands + machine.child_used(child, jobs, 0)


def wearing(children=2):
    """Return a pool whose children were fast to start, and may run 100 jobs."""
    recycle = Recycle(max_jobs=100, jitter=0.0)
    return Machine(children, recycle=recycle)


def test_a_child_that_is_used_up_soon_gets_a_successor_that_stands_by():
    machine = wearing()
    machine.now += 10.0
    assert machine.child_used(1, 10, 0) == [], "90 s are left"
    machine.now += 10.0
    assert machine.child_used(1, 20, 0) == []
    assert machine.child_used(1, 21, 0) == []
    successor = machine.start(wear(machine, 1, 90))
    assert machine.child_ready(successor) == []
    assert machine.working == {1, 2}, "the successor waits"
    assert (machine.stats.standby, machine.stats.ready) == (1, 2)
    assert RetireChild(1, JOBS) in recycled(machine, 1, JOBS)
    assert machine.working == {2, successor}


def test_a_leap_that_does_not_go_on_is_no_reason():
    machine = wearing(1)
    machine.now += 0.01
    assert machine.child_used(1, 50, 0) == [], "a first job, that imports libraries"
    machine.now += 0.01
    assert machine.child_used(1, 50, 0) == []


def test_one_successor_at_a_time_starts_ahead():
    machine = wearing()
    for child in (1, 2):
        machine.child_used(child, 1, 0)
    successor = machine.start(wear(machine, 1, 50))
    assert wear(machine, 2, 50) == []
    machine.start(machine.child_ready(successor))


class Storm:
    """Children that each run jobs at the same pace, and are used up together."""

    def __init__(self, children, boot, life, jobs=100, jitter=0.1):
        recycle = Recycle(max_jobs=jobs, jitter=jitter)
        self.machine = Machine(children, ready=False, recycle=recycle)
        self.children = children
        self.boot, self.pause, self.jobs = boot, life / jobs, jobs
        #: what happens, and when, to which child
        self.due = [(self.machine.now + boot, "ready", c + 1) for c in range(children)]
        self.ran, self.lowest = {}, children

    def run(self, until):
        end = self.machine.now + until
        while self.machine.now < end:
            self.due.sort()
            self.machine.now, what, child = self.due.pop(0)
            for command in getattr(self, what)(child):
                if isinstance(command, StartChild):
                    now = self.machine.now
                    self.due.append((now + self.boot, "ready", command.child))
            for child in self.machine.working - self.ran.keys():
                self.ran[child] = 0
                self.due.append((self.machine.now + self.pause, "work", child))
            if len(self.ran) >= self.children:  # all have started
                self.lowest = min(self.lowest, len(self.machine.working))

    def ready(self, child):
        return self.machine.child_ready(child)

    def work(self, child):
        self.ran[child] += 1
        limit = self.machine.supervision._children[child].allowance.jobs
        if self.ran[child] == limit:
            return self.machine.child_spent(child, JOBS)
        self.due.append((self.machine.now + self.pause, "work", child))
        return self.machine.child_used(child, self.ran[child], 0)


@pytest.mark.parametrize("boot", [0.003, 0.1, 1.0])
@pytest.mark.parametrize("life", [10.0, 60.0])
def test_capacity_never_drops_while_all_are_used_up_together(boot, life):
    """However long a start takes; the first ones too, of whose kind none was known."""
    storm = Storm(8, boot, life)
    storm.run(3.0 * life)
    assert storm.machine.stats.started > 16
    assert storm.lowest == 8


def test_a_pace_that_is_known_begins_the_next_successor_at_once():
    machine = wearing(1)
    successor = machine.start(wear(machine, 1, 50))
    machine.child_ready(successor)
    retire, start = sorted(recycled(machine, 1, JOBS), key=repr)
    assert retire == RetireChild(1, JOBS)
    assert start == StartChild(0, 3, max_jobs=100)


def test_a_pace_that_sinks_is_believed_slowly():
    machine = wearing(1)
    successor = machine.start(wear(machine, 1, 50))
    machine.child_ready(successor)
    machine.start(
        command
        for command in recycled(machine, 1, JOBS)
        if isinstance(command, StartChild)
    )
    machine.child_ready(3)
    for _ in range(200):
        machine.now += 100.0
        assert machine.child_used(successor, 1, 0) == []
    retire = recycled(machine, successor, JOBS)
    assert retire == [RetireChild(successor, JOBS)], "the next one lasts, by all signs"


def test_a_child_that_is_used_up_at_once_leaves_and_its_slot_is_filled():
    machine = Machine(2)
    assert recycled(machine, 1) == [RetireChild(1, MEMORY), StartChild(0, 3)]
    assert machine.child_ready(3) == []
    assert machine.working == {2, 3}
    assert machine.child_exited(1, Exit.WANTED, "exit code 0") == []


def test_a_successor_that_still_starts_is_waited_for():
    machine = Machine(1)
    machine.retire(1)
    assert recycled(machine, 1) == [RetireChild(1, MEMORY)]
    assert machine.child_ready(2) == []
    assert machine.working == {2}


def test_being_used_up_twice_changes_nothing():
    machine = Machine(2)
    recycled(machine, 1)
    assert recycled(machine, 1) == []
    assert machine.child_used(1, 5, 0) == [], "nor do its figures"


def test_a_successor_that_stands_by_takes_over_when_the_other_one_dies():
    machine = wearing(1)
    successor = machine.start(wear(machine, 1, 50))
    machine.child_ready(successor)
    commands = machine.crash(1)
    assert successor in machine.working
    assert [type(command) for command in commands] == [StartChild], "by its pace"


def test_a_successor_that_dies_while_it_stands_by_is_replaced():
    machine = wearing(1)
    successor = machine.start(wear(machine, 1, 50))
    machine.child_ready(successor)
    machine.start(machine.crash(successor))
    assert machine.working == {1}


def test_scaling_away_a_slot_lets_one_that_stands_by_leave_by_itself():
    machine = wearing(1)
    successor = machine.start(wear(machine, 1, 50))
    machine.child_ready(successor)
    assert machine.scale_asked(0) == [
        RetireChild(successor, SHRINK),
        RetireChild(1, SHRINK),
    ]


def test_one_that_stands_by_takes_over_at_once_when_that_is_asked():
    machine = wearing(1)
    successor = machine.start(wear(machine, 1, 50))
    machine.child_ready(successor)
    assert RetireChild(1, OLD) in machine.retire(1)
    assert machine.working == {successor}


def test_in_a_failed_pool_no_successor_starts_ahead():
    machine = wearing(2)
    machine.fail()
    assert wear(machine, 1, 90) == []


def test_used_up_in_a_failed_pool_it_leaves_and_is_not_replaced():
    machine = Machine(2)
    machine.fail()
    assert recycled(machine, 1) == [RetireChild(1, MEMORY)]
    assert machine.stats.ready == 0


def test_a_child_that_is_too_old_is_replaced():
    machine = Machine(1, recycle=Recycle(max_age=60, jitter=0.0))
    assert machine.supervision.next_due() == machine.now + 60.0
    successor = machine.start(machine.wait(60.0))
    machine.now += 0.5
    assert machine.child_ready(successor) == [RetireChild(1, OLD)]
    assert machine.supervision.next_due() == machine.now + 60.0, "of the new one"


def test_children_of_the_same_age_are_replaced_one_after_the_other():
    machine = Machine(3, recycle=Recycle(max_age=60, jitter=0.0))
    machine.now += 60.0
    retired = []
    for _ in range(3):
        successor = machine.start(machine.time_passed())
        assert machine.wait(0.1) == [], "not before that one is ready"
        assert machine.stats.ready == 3
        retired += machine.child_ready(successor)
        machine.now += 0.2
    assert sorted(command.child for command in retired) == [1, 2, 3]


def test_in_a_failed_pool_nobody_is_too_old():
    machine = Machine(2, recycle=Recycle(max_age=60, jitter=0.0), cool_down=1000.0)
    machine.fail()
    assert machine.wait(60.0) == []
    assert machine.working >= {1}
    child = machine.start(machine.wait(1000.0))
    machine.child_ready(child)
    machine.start(machine.wait_due())


def test_who_dies_is_not_too_old_any_more():
    machine = Machine(1, recycle=Recycle(max_age=60, jitter=0.0))
    machine.scale_asked(0)
    machine.child_exited(1, Exit.WANTED, "exit code 0")
    assert machine.supervision.next_due() is None


def test_health_takes_longer_to_prove_where_starts_take_long():
    machine = Machine(1, ready=False, health=10.0)
    machine.now += 5.0
    machine.child_ready(1)
    machine.now += 49.0
    child = machine.start(machine.crash(1))
    machine.now += 5.0
    machine.child_ready(child)
    machine.now += 49.0
    assert machine.crash(child) == []


# Stopping


def test_stopping_retires_what_is_ready_and_terminates_the_rest():
    machine = Machine(2)
    machine.crash(2)
    assert machine.stop_asked(inf) == [
        RetireChild(1, SHUTDOWN),
        TerminateChild(3, SHUTDOWN),
    ]
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
    assert machine.wait(1.0) == [
        TerminateChild(1, SHUTDOWN),
        TerminateChild(2, SHUTDOWN),
    ]
    machine.child_exited(2, CRASH, "SIGTERM")
    assert machine.wait(2.0) == [KillChild(1, SHUTDOWN)]
    assert machine.wait(3600.0) == []


def test_a_deadline_that_has_passed_leaves_no_time():
    machine = Machine(1)
    assert machine.stop_asked(machine.now) == [
        RetireChild(1, SHUTDOWN),
        TerminateChild(1, SHUTDOWN),
    ]


def test_stopping_may_be_asked_again_with_less_patience():
    machine = Machine(1)
    machine.stop_asked(inf)
    assert machine.stop_asked(machine.now) == [TerminateChild(1, SHUTDOWN)]
    assert machine.stop_asked(machine.now) == []


def test_a_stopping_pool_starts_nothing():
    machine = Machine(2)
    child = machine.start(machine.crash(1))
    machine.child_ready(child)
    machine.crash(child)
    machine.stop_asked(inf)
    assert machine.scale_asked(5) == []
    assert machine.retire(2) == []
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
        "standby": 0,
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
        ("child_retire_asked", (9, OLD)),
        ("child_used", (9, 1, 1)),
        ("child_spent", (9, JOBS)),
        ("child_exited", (9, CRASH, "exit")),
    ]:
        with pytest.raises(InternalError, match="child 9 is not known"):
            getattr(machine, fact)(*args)


def test_getting_ready_twice_is_a_bug():
    machine = Machine(1)
    with pytest.raises(InternalError, match="from READY to READY"):
        machine.child_ready(1)


def test_only_who_is_ready_works():
    machine = Machine(1, ready=False)
    assert not machine.supervision.works(1)
    machine.child_ready(1)
    assert machine.supervision.works(1)
    assert not machine.supervision.works(99)
    assert machine.supervision.state_of(1) is ChildState.READY
    assert machine.supervision.state_of(99) is ChildState.GONE


def test_the_place_of_a_child_is_known_while_it_has_one():
    machine = Machine(2)
    assert [machine.supervision.slot_of(child) for child in (1, 2)] == [0, 1]
    assert machine.supervision.slot_of(3) == -1, "nobody knows it"
