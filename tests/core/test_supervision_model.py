"""Supervision among processes that start, die and dawdle, in any order of events."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from offloop.core.children import SupervisionState
from offloop.core.commands import StartChild
from offloop.core.exits import Exit, ExitReason
from offloop.core.spares import NO_SLOT
from offloop.core.supervision import Supervision
from offloop.options import Recycle

MAX_RESTARTS = 5
PERIOD = 30.0
BOOT_TIMEOUT = 60.0
COOL_DOWN = 60.0
GRACE = 2.0
RECYCLE = Recycle(max_jobs=100, max_age=40.0)


@dataclass
class Process:
    """A child as the world knows it, and what it was told."""

    number: int
    slot: int
    started_at: float
    ready: bool = False
    employed: bool = False
    spent: bool = False
    retired: bool = False
    terminated_at: float = inf
    killed: bool = False

    @property
    def dismissed(self) -> bool:
        return self.retired or self.terminated_at != inf

    @property
    def leaving(self) -> bool:
        return self.dismissed or self.killed


class SupervisionModel(RuleBasedStateMachine):
    """Every step is one event; each command is judged by books of its own."""

    #: children that should stand by
    SPARES = 0

    def __init__(self) -> None:
        super().__init__()
        self.supervision = Supervision(
            recycle=RECYCLE,
            spares=self.SPARES,
            max_restarts=MAX_RESTARTS,
            period=PERIOD,
            boot_timeout=BOOT_TIMEOUT,
            cool_down=COOL_DOWN,
            grace=GRACE,
        )
        self.now = 10.0
        self.processes: dict[int, Process] = {}
        self.last = 0
        self.target = 0
        self.deadline = inf
        self.stopping = False
        #: times of unasked deaths
        self.deaths: list[float] = []
        self.gave_up = False
        #: when it last gave up, and how many it has tried since
        self.failed_at = -inf
        self.tries = 0
        #: who was employed by the fact that is being told
        self.takes_over: Process | None = None

    # Telling and judging

    def tell(self, name: str, *args):
        self.gave_up = False
        self.takes_over = None
        args = (
            [args[0], self.now, *args[1:]]
            if name == "scale_asked"
            else [*args, self.now]
        )
        failed = self.supervision.state is SupervisionState.FAILED
        for command in getattr(self.supervision, name)(*args):
            if failed and self.supervision.state is SupervisionState.FAILED:
                self.judge_try(command)
            getattr(self, f"judge_{type(command).__name__}")(command)
        for process in self.processes.values():  # slots may have changed places
            child = self.supervision._children[process.number]
            process.slot = child.slot
        self.supervision.check()
        self.judge_pool()

    def judge_StartChild(self, command):
        assert command.child == self.last + 1, "numbers are never used again"
        assert not self.stopping
        others = [one for one in self.in_slot(command.slot) if not one.leaving]
        if command.slot == NO_SLOT:
            assert len(others) < self.SPARES
        else:
            assert 0 <= command.slot < self.target
            assert len(others) <= 1
            assert all(one.employed for one in others), "beside one that works only"
        assert 90 <= command.max_jobs <= 100
        self.last = command.child
        self.processes[self.last] = Process(self.last, command.slot, self.now)

    def judge_try(self, command):
        """A pool that has failed, and stays so, starts one process at a time."""
        if isinstance(command, StartChild):
            others = self.processes.values()
            assert all(one.ready or one.leaving for one in others), "half-open"
            assert self.now >= self.failed_at + COOL_DOWN or self.tries
            self.tries += 1

    def judge_EmployChild(self, command):
        process = self.processes[command.child]
        assert process.ready
        assert not process.employed
        assert not process.dismissed
        process.employed = True
        process.slot = self.supervision._children[command.child].slot  # of a spare
        self.takes_over = process

    def judge_RetireChild(self, command):
        process = self.processes[command.child]
        assert process.ready
        assert not process.dismissed
        assert isinstance(command.reason, ExitReason)
        process.retired = True
        replaced = command.reason not in (ExitReason.SCALED_DOWN, ExitReason.SHUTDOWN)
        if replaced and not process.spent and process.employed:
            assert self.takes_over is not None, "nobody stood by"
            assert self.takes_over.slot == process.slot

    def judge_TerminateChild(self, command):
        process = self.processes[command.child]
        assert process.terminated_at == inf
        assert not process.ready or self.deadline <= self.now
        process.terminated_at = self.now

    def judge_KillChild(self, command):
        process = self.processes[command.child]
        assert not process.killed
        dawdled = process.terminated_at + GRACE <= self.now
        unborn = not process.ready and process.started_at + BOOT_TIMEOUT <= self.now
        assert dawdled or unborn
        process.killed = True

    def judge_GiveUp(self, command):
        assert not self.gave_up, "said once"
        assert command.reason
        self.gave_up = True
        self.failed_at = self.now
        self.tries = 0

    def judge_pool(self):
        state = self.supervision.state
        assert (state is SupervisionState.STOPPING) == self.stopping
        if self.gave_up:
            assert state is SupervisionState.FAILED
            assert self.supervision.next_due() is not None, "it will try again"
        stats = self.supervision.stats()
        assert stats.target == self.target
        if state is SupervisionState.RUNNING:
            placed = self.processes.values()
            everyone = [one for one in placed if one.slot != NO_SLOT]
            filled = {one.slot for one in everyone if not one.dismissed}
            assert len(filled) + stats.waiting >= self.target, "an empty slot"
            at_work = [one for one in everyone if one.employed and not one.leaving]
            assert len({one.slot for one in at_work}) == len(at_work), "one a slot"
            recent = [when for when in self.deaths if when > self.now - PERIOD]
            assert len(recent) <= MAX_RESTARTS, "it should have failed"
        else:
            self.deaths.clear()  # after a recovery they count no more

    def in_slot(self, slot: int) -> list[Process]:
        return [one for one in self.processes.values() if one.slot == slot]

    def process(self, index: int) -> Process:
        processes = list(self.processes.values())
        return processes[index % len(processes)]

    # Events

    @rule(count=st.integers(0, 4))
    def scale(self, count):
        if not self.stopping:
            self.target = count
        self.tell("scale_asked", count)

    @precondition(lambda self: self.processes and self.target)
    @rule(indices=st.lists(st.integers(0, 5), max_size=3))
    def shrink(self, indices):
        first = [self.process(index).number for index in indices]
        self.target = max(self.target - len(indices), 0)
        self.tell("scale_asked", self.target, first)

    @precondition(lambda self: self.processes)
    @rule(index=st.integers(0, 5))
    def get_ready(self, index):
        process = self.process(index)
        if not process.ready and not process.killed:
            process.ready = process.terminated_at == inf
            self.tell("child_ready", process.number)

    @rule()
    def all_get_ready(self):
        for index in range(len(self.processes)):
            self.get_ready(index)

    @precondition(lambda self: self.processes)
    @rule(index=st.integers(0, 5), exit=st.sampled_from(Exit))
    def die(self, index, exit):
        process = self.process(index)
        del self.processes[process.number]
        if exit is Exit.UNASKED and not process.leaving:
            self.deaths.append(self.now)
        self.tell("child_exited", process.number, exit, "died")

    @rule()
    def those_that_should_leave_leave(self):
        for process in list(self.processes.values()):
            if process.leaving:
                del self.processes[process.number]
                self.tell("child_exited", process.number, Exit.WANTED, "left")

    @precondition(lambda self: self.processes)
    @rule(index=st.integers(0, 5))
    def recycle(self, index):
        reason = ExitReason.RELOADED
        self.tell("child_retire_asked", self.process(index).number, reason)

    @precondition(lambda self: self.processes)
    @rule(index=st.integers(0, 5), jobs=st.integers(1, 99))
    def work(self, index, jobs):
        process = self.process(index)
        if process.employed:
            self.tell("child_used", process.number, jobs, 0)

    @precondition(lambda self: self.processes)
    @rule(index=st.integers(0, 5))
    def be_spent(self, index):
        process = self.process(index)
        if process.employed:
            process.spent = True
            self.tell("child_spent", process.number, ExitReason.RECYCLED_JOBS)
            assert process.dismissed or process.killed

    @rule(seconds=st.sampled_from([0.05, 1.0, 2.0, 11.0, 61.0]))
    def pass_time(self, seconds):
        self.now += seconds
        self.tell("time_passed")
        due = self.supervision.next_due()
        assert due is None or due > self.now, "what was due is done"

    @rule()
    def pass_time_until_something_is_due(self):
        due = self.supervision.next_due()
        if due is not None:
            self.pass_time(due - self.now)

    @rule(patience=st.sampled_from([0.0, 5.0, inf]), unlikely=st.integers(0, 9))
    def stop(self, patience, unlikely):
        if unlikely:
            return  # else hardly any run would get far
        self.stopping = True
        self.target = 0
        self.deadline = self.now + patience
        self.tell("stop_asked", self.deadline)

    def teardown(self):
        if not self.stopping:
            self.heal()
        self.stopping = True
        self.target = 0
        self.deadline = self.now
        self.tell("stop_asked", self.deadline)
        self.pass_time(GRACE)
        assert all(one.killed for one in self.processes.values())
        self.those_that_should_leave_leave()
        assert self.supervision.stopped
        assert self.supervision.next_due() is None

    def heal(self):
        """However bad it was, a pool whose processes live is whole after a while."""
        for _ in range(20):
            self.all_get_ready()
            self.those_that_should_leave_leave()
            self.pass_time_until_something_is_due()
        stats = self.supervision.stats()
        assert stats.state is SupervisionState.RUNNING
        assert stats.ready == self.target
        at_work = [one for one in self.processes.values() if not one.leaving]
        assert sum(one.employed for one in at_work) == self.target
        assert stats.waiting == 0
        standing_by = [one for one in at_work if one.slot == NO_SLOT]
        assert len(standing_by) == self.SPARES
        assert all(one.ready for one in standing_by)
        assert stats.starting <= 1, "a successor, because of somebody's age"


class SparesModel(SupervisionModel):
    """The same with children that stand by, and may be outdated."""

    SPARES = 2

    def __init__(self) -> None:
        super().__init__()
        self.tell("scale_asked", 0)

    @rule()
    def outdate_spares(self):
        self.tell("spares_outdated", ExitReason.RELOADED)


TestSparesModel = pytest.mark.slow(SparesModel.TestCase)
TestSparesModel.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None
)
TestSupervisionModel = pytest.mark.slow(SupervisionModel.TestCase)
TestSupervisionModel.settings = settings(
    max_examples=120, stateful_step_count=60, deadline=None
)
