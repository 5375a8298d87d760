"""The whole suite: offloop and its peers, at the same work, in turns.

    python -m benchmarks [--quick] [--minutes N] [--only CASE ...] [--peers NAME ...]
    python -m benchmarks --list
    python -m benchmarks --publish
    python -m benchmarks --from benchmarks/results/DATE-full --publish
    python -m benchmarks --from FOLDER FOLDER ...       join what was measured in pieces

Writes results.json, tables.md and charts into benchmarks/results/DATE-FORM. With
--publish, the README's table, the charts in docs/charts and
benchmarks/results/published.* are made from them as well.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from time import monotonic

import cases
import peers
from harness import machine, readme, suite, tables

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def main() -> int:
    args = arguments()
    everything = cases.everything()
    if args.list:
        for case in everything.values():
            print(f"{case.name:<14}{case.title}")
        return 0
    results = join(args.source) if args.source else measure(args, everything)
    folder = write(results, args.into)
    document = tables.document(results, everything)
    (folder / "tables.md").write_text(document)
    print(f"\n{document}")
    draw(results, everything, folder / "charts")
    if args.publish:
        publish(results, everything, folder)
    print(f"In {folder}: results.json, tables.md, charts")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=(__doc__ or "").split("\n")[0],
        epilog="See benchmarks/README.md for how to read the results.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="2 minutes: fewer peers, shorter, noisier")
    add("--minutes", type=float, help="time for all; 10, and 2 with --quick")
    add("--only", nargs="+", metavar="CASE", help="some cases; see --list")
    add("--peers", nargs="+", metavar="NAME", help="some peers; offloop is always one")
    add("--list", action="store_true", help="name the cases, and measure nothing")
    add("--from", dest="source", type=Path, nargs="+", metavar="FOLDER")
    add("--into", type=Path, default=RESULTS, metavar="FOLDER", help="where to write")
    add("--publish", action="store_true", help="into README.md and docs/charts, too")
    args = parser.parse_args()
    check(parser, args.only, list(cases.everything()), "case")
    check(parser, args.peers, [*peers.PEERS, *peers.PROGRAMS], "peer")
    return args


def check(parser: argparse.ArgumentParser, given, known: list[str], what: str) -> None:
    if wrong := sorted(set(given or ()) - set(known)):
        wrong, known = ", ".join(wrong), ", ".join(known)
        parser.error(f"no such {what}: {wrong}; there are {known}")


def join(folders: list[Path]) -> dict:
    """Return earlier results; of a case that several have, those of the last."""
    pieces = [json.loads((one / "results.json").read_text()) for one in folders]
    found = {name: piece["cases"][name] for piece in pieces for name in piece["cases"]}
    order = [name for name in cases.everything() if name in found]
    return {**pieces[0], "cases": {name: found[name] for name in order}}


def write(results: dict, into: Path) -> Path:
    """Write results into a folder that their date names, and return it."""
    date = results["machine"]["date"][:16].replace(":", "")
    folder = into / f"{date}-{results['form']}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    return folder


def measure(args: argparse.Namespace, everything: dict) -> dict:
    chosen = [
        case
        for name, case in everything.items()
        if (name in args.only if args.only else case.quick or not args.quick)
    ]
    minutes = args.minutes or (2.0 if args.quick else 10.0)
    about = machine.describe()
    names = args.peers and ["offloop", *args.peers]
    print(f"{machine.sentence(about)}\n", flush=True)
    began = monotonic()

    def say(text: str) -> None:
        print(f"{monotonic() - began:4.0f} s  {text}", flush=True)

    found = {}
    try:
        for case in suite.run(chosen, minutes, args.quick, names, say):
            found.update([case])
    except KeyboardInterrupt:
        say("interrupted: what is done is kept")
    else:
        say("done")
    form = "quick" if args.quick else "full"
    return {"form": form, "machine": about, "cases": found}


def draw(results: dict, everything: dict, folder: Path) -> None:
    try:
        from harness import charts
    except ImportError as error:
        print(f"no charts: {error}")
    else:
        charts.draw_all(results, everything, folder)


def publish(results: dict, everything: dict, folder: Path) -> None:
    """Bring results to where users read them."""
    readme.write(HERE.parent / "README.md", results, everything)
    for name in ("results.json", "tables.md"):
        target = RESULTS / f"published{Path(name).suffix}"
        shutil.copyfile(folder / name, target)
    if (folder / "charts").is_dir():
        charts = HERE.parent / "docs" / "charts"
        shutil.copytree(folder / "charts", charts, dirs_exist_ok=True)


if __name__ == "__main__":
    sys.exit(main())
