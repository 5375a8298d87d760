"""What facts and measures mean, and what to change. Pure: nothing is read here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from offloop.doctor.facts import THREAD_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offloop.doctor.facts import Facts
    from offloop.doctor.measures import Measures

Level = Literal["bad", "warning", "note"]

# Descriptors of a worker in its parent, and what a program has open beside.
_FILES_PER_WORKER = 8
_FILES_BESIDE = 64

# What a worker takes with a few libraries imported, and what is spare for a start.
_USUAL_WORKER = 200 << 20

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that should be known.

    Attributes:
        level: "bad": a pool will not work; "warning": it will be slow or break under
            load; "note": good to know.
        what: it is.
        cure: what to do; "" if nothing has to be done.
    """

    level: Level
    what: str
    cure: str = ""


def judge(facts: Facts, measures: Measures | None) -> list[Finding]:
    """Return what is to be said, the worst first.

    Args:
        facts: of the machine.
        measures: of a pool on it; None: nothing was measured.
    """
    found = [
        *_system(facts),
        *_cores(facts),
        *_memory(facts),
        *_limits(facts),
        *_variables(facts),
        *(() if measures is None else _speed(facts, measures)),
    ]
    order = ("bad", "warning", "note")
    return sorted(found, key=lambda finding: order.index(finding.level))


def _system(facts: Facts) -> Iterator[Finding]:
    if not facts.system.startswith("Linux"):
        yield Finding(
            "note",
            f"{facts.system.split()[0]} is not tested: what only Linux can do has a "
            "plainer substitute",
        )
    elif not facts.pidfd:
        yield Finding(
            "bad",
            "the end of a process cannot be watched",
            "use Linux 5.3 or newer, and a Python that was built on one",
        )
    if not facts.gil:
        yield Finding(
            "note", "this Python runs without a global lock, which is not tested"
        )
    if facts.sockets_trouble:
        yield Finding("bad", facts.sockets_trouble, "see OFFLOOP_RUNTIME_DIR")


def _cores(facts: Facts) -> Iterator[Finding]:
    usable = facts.affinity
    if facts.quota is not None:
        usable = max(1, min(usable, int(facts.quota + 0.999)))
        if facts.quota < 1:
            yield Finding(
                "warning",
                f"the container may use {facts.quota:.2g} of a core, for the event "
                "loop and all workers together",
                "give it a quota of 2 or more",
            )
        if facts.throttled > 0.05:
            yield Finding(
                "warning",
                f"the quota has stopped this container in {facts.throttled:.0%} of all "
                "periods; everything stands still then, the event loop too",
                "raise the quota, or start fewer workers",
            )
    if usable == 1:
        yield Finding(
            "note",
            "there is one core: work is done beside the event loop, and not faster",
        )
    if facts.workers > 2 * usable:
        yield Finding(
            "warning",
            f"{facts.workers} workers on {usable} cores take turns",
            "unset OFFLOOP_MAX_WORKERS, unless jobs wait for something",
        )
    if facts.load > 1.5 * facts.affinity:
        yield Finding(
            "warning",
            f"{facts.load:.1f} processes want one of {facts.affinity} cores: others "
            "are at work here",
            "ask again on a quiet machine; a pool cannot have more than is left",
        )


def _memory(facts: Facts) -> Iterator[Finding]:
    per_worker = facts.memory // (facts.workers + 1)
    if facts.memory and per_worker < _USUAL_WORKER:
        yield Finding(
            "warning",
            f"there are {_size(facts.memory)} for {facts.workers} workers and the "
            f"program: {_size(per_worker)} for each",
            "start fewer workers (OFFLOOP_MAX_WORKERS), or set memory_limit",
        )
    if facts.available and facts.available < 0.1 * facts.memory:
        yield Finding(
            "warning",
            f"{_size(facts.available)} of memory are free",
            "see who has it; the kernel kills processes when there is none",
        )
    if not facts.memfd:
        yield Finding(
            "note", "no anonymous shared memory: large payloads go through files"
        )
    if facts.address_space is not None and facts.address_space < 4 * _GIB:
        yield Finding(
            "warning",
            f"a process may map {_size(facts.address_space)} (ulimit -v), which shared "
            "memory counts against",
            "ulimit -v unlimited; memory_limit bounds what jobs hold",
        )


def _limits(facts: Facts) -> Iterator[Finding]:
    needed = _FILES_BESIDE + _FILES_PER_WORKER * facts.workers
    if facts.open_files < needed:
        yield Finding(
            "bad",
            f"this program may open {facts.open_files} files, and a pool of "
            f"{facts.workers} workers takes about {needed}",
            f"ulimit -n {max(1024, needed)}, or LimitNOFILE= in the unit",
        )
    if facts.processes is not None and facts.processes < 2 * facts.workers + 2:
        yield Finding(
            "bad",
            f"{facts.processes} more processes may be started here, and each worker is "
            "one with threads",
            "raise pids.max of the container (--pids-limit)",
        )


def _variables(facts: Facts) -> Iterator[Finding]:
    engine = facts.variables.get("OFFLOOP_ENGINE")
    if engine and engine != "local":
        yield Finding(
            "note",
            f"OFFLOOP_ENGINE={engine}: all pools run their jobs there",
            "unset it to have workers of one's own",
        )
    for name in THREAD_VARIABLES:
        threads = facts.variables.get(name, "")
        if threads.isdigit() and int(threads) * facts.workers > 2 * facts.affinity:
            yield Finding(
                "warning",
                f"{name}={threads} is kept as it is: {facts.workers} workers with so "
                f"many threads each, on {facts.affinity} cores",
                "unset it: workers have one thread each then (threads_per_worker)",
            )


def _speed(facts: Facts, measures: Measures) -> Iterator[Finding]:
    if measures.engine != "local":
        return
    if measures.round_trip > 1e-3:
        yield Finding(
            "warning",
            f"an empty call takes {_time(measures.round_trip)}; 0.1 to 0.3 ms are "
            "usual",
            "is the machine busy, or the processor asleep? See load and quota above",
        )
    if measures.first_result > 1.0:
        yield Finding(
            "warning",
            f"the first result came after {_time(measures.first_result)}; 0.2 s are "
            "usual",
            "a slow disk, or much on sys.path? `await pool.ready()` before it matters",
        )
    slow = min(measures.copy_in, measures.copy_out)
    if slow < 0.5 * _GIB:
        yield Finding(
            "warning",
            f"large payloads travel at {_size(slow)} a second; 1 to 5 GiB are usual",
            "send less, or arrays of pool.empty() and pool.put(), which are not copied",
        )
    worth = 10 * measures.round_trip
    yield Finding(
        "note",
        f"a call costs {_time(measures.round_trip)} here: work of {_time(worth)} and "
        "more is worth one, shorter work in bundles (`map`)",
    )


def _size(number: float) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1024:.0f} KiB"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds * 1e6:.0f} µs"
