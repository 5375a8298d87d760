"""The command ``offloop doctor``: prints what was found, for people or as JSON."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offloop.doctor.advice import Finding
    from offloop.doctor.facts import Facts
    from offloop.doctor.measures import Measures

__all__ = ["doctor"]

_MIB = 1 << 20
_COLOURS = {"bad": "red", "warning": "yellow", "note": "blue"}


@click.command(
    epilog="""\b
Examples:
  offloop doctor
  offloop doctor --json | jq .measures.round_trip
  OFFLOOP_MAX_WORKERS=8 offloop doctor --no-measure
  docker run --rm --cpus 2 IMAGE offloop doctor
"""
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.option(
    "--measure/--no-measure",
    default=True,
    help="Start a pool and measure it, which takes two seconds.",
)
def doctor(as_json: bool, measure: bool) -> None:
    """Look at this machine, measure what a call costs, and say what to change.

    It exits with 1 if a pool does not work here, otherwise with 0.
    """
    from offloop.doctor.advice import judge
    from offloop.doctor.facts import gather

    facts = gather()
    measures, trouble = _measured() if measure else (None, "")
    findings = judge(facts, measures)
    if trouble:
        from offloop.doctor.advice import Finding

        findings.insert(0, Finding("bad", trouble))
    if as_json:
        told = {
            "ok": not any(finding.level == "bad" for finding in findings),
            "facts": asdict(facts),
            "measures": None if measures is None else asdict(measures),
            "findings": [asdict(finding) for finding in findings],
        }
        click.echo(json.dumps(told, indent=2))
    else:
        for line in _lines(facts, measures, findings):
            click.echo(line)
    if any(finding.level == "bad" for finding in findings):
        raise SystemExit(1)


def _measured() -> tuple[Measures | None, str]:
    """Return measures, or why there are none."""
    from offloop.doctor.measures import measure
    from offloop.errors import OffloopError

    try:
        return asyncio.run(measure()), ""
    except OffloopError as error:
        return None, f"a pool does not work: {error}"


def _lines(
    facts: Facts, measures: Measures | None, findings: list[Finding]
) -> Iterator[str]:
    yield _row("offloop", f"{facts.offloop}, {facts.python}, {facts.system}")
    packages = (f"{name} {version}" for name, version in facts.packages.items())
    yield _row("with", ", ".join(packages))
    quota = "no quota" if facts.quota is None else f"quota {facts.quota:.3g}"
    yield _row(
        "cores",
        f"{facts.cores}, of which this process may use {facts.affinity}; {quota}; "
        f"load {facts.load:.1f}",
    )
    yield _row("workers", f"{facts.workers} in a pool that was told no number")
    yield _row(
        "memory",
        f"{facts.memory / _MIB:,.0f} MiB, {facts.available / _MIB:,.0f} of the "
        f"machine's free; {'' if facts.memfd else 'no '}anonymous shared memory",
    )
    processes = "any number of" if facts.processes is None else f"{facts.processes:,}"
    yield _row("limits", f"{facts.open_files:,} open files; {processes} more processes")
    yield _row("sockets", f"in {facts.sockets}" if facts.sockets else "none")
    yield _row(
        "workers start",
        "from a process of the pool's own (multiprocessing has "
        f"{facts.start_method!r}, which does not matter)",
    )
    for name, value in facts.variables.items():
        yield _row("set", f"{name}={value}")
    if measures is not None:
        yield ""
        yield from _measure_lines(measures)
    yield ""
    for finding in findings:
        level = click.style(f"{finding.level:>7}", fg=_COLOURS[finding.level])
        yield f"{level}  {finding.what}"
        if finding.cure:
            yield f"{'do':>9}: {finding.cure}"
    if all(finding.level == "note" for finding in findings):
        yield click.style("     ok", fg="green") + "  a pool works well here"


def _measure_lines(measures: Measures) -> Iterator[str]:
    yield _row("first result", f"{measures.first_result * 1e3:.0f} ms after nothing")
    yield _row(
        "empty call",
        f"{measures.round_trip * 1e6:.0f} µs one at a time (p99 "
        f"{measures.round_trip_p99 * 1e6:.0f} µs); {measures.calls:,.0f} a second with "
        "64 in flight",
    )
    yield _row(
        "64 MiB",
        f"{measures.copy_in / _MIB:,.0f} MiB/s to a worker, "
        f"{measures.copy_out / _MIB:,.0f} MiB/s back; the event loop was held up for "
        f"{measures.loop_lag * 1e3:.1f} ms at most",
    )


def _row(name: str, text: str) -> str:
    return f"{name:>13}  {text}"
