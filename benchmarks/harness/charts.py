"""Draws results: PNG and SVG, for light pages and for dark ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl

from harness.figures import middle, readable
from harness.tables import title

mpl.use("Agg")
from matplotlib import pyplot

if TYPE_CHECKING:
    from pathlib import Path

    from harness.figures import Case

OURS = "offloop"


class Look(NamedTuple):
    """Colours of a chart on a light or a dark page."""

    name: str
    ink: str
    grid: str
    ours: str
    others: str
    lines: tuple[str, ...]


LOOKS = (
    Look(
        "light",
        ink="#24292f",
        grid="#d0d7de",
        ours="#0b6e4f",
        others="#9aa5b1",
        lines=("#b3541e", "#3a5a98", "#7d4e8c", "#8a7a1f", "#5a6570"),
    ),
    Look(
        "dark",
        ink="#e6edf3",
        grid="#30363d",
        ours="#3ddc97",
        others="#5b6673",
        lines=("#f0883e", "#79a7f2", "#c792d6", "#d9c75a", "#98a3ae"),
    ),
)

#: file, case, figure, heading
BARS = (
    ("throughput", "throughput", "many", "Empty calls a second, 64 in flight"),
    ("round-trip", "round-trip", "p50", "An empty call, one at a time: median"),
    ("images", "images", "rate", "Images a second over HTTP, all cores"),
    ("memory", "memory", "worker", "Memory (PSS) of one more idle worker"),
)
#: file, case, heading, label of the horizontal axis, contenders
CURVES = (
    (
        "payloads",
        "array-in",
        "A numpy array to a worker, and its sum back",
        "bytes",
        (
            OURS,
            "ProcessPoolExecutor",
            "multiprocessing.Pool",
            "loky",
            "ray",
            "memcpy",
        ),
    ),
    (
        "crossover",
        "crossover",
        "Time for each job, by its own length, 64 in flight",
        "length of the job, seconds",
        (OURS, "inline", "asyncio.to_thread", "ProcessPoolExecutor"),
    ),
)


def draw_all(results: dict, cases: dict[str, Case], folder: Path) -> list[Path]:
    """Draw what there are results for; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for look in LOOKS:
        with mpl.rc_context(settings(look)):
            for name, case, key, heading in BARS:
                if case in results["cases"]:
                    figure = bars(results, cases[case], key, heading, look)
                    made += save(figure, folder / f"{name}-{look.name}")
            for name, case, heading, label, who in CURVES:
                if case in results["cases"]:
                    figure = curves(results, cases[case], heading, label, who, look)
                    made += save(figure, folder / f"{name}-{look.name}")
    return made


def settings(look: Look) -> dict:
    return {
        "axes.edgecolor": look.grid,
        "axes.labelcolor": look.ink,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "font.size": 10,
        "svg.fonttype": "none",  # small files, and text that can be selected
        "svg.hashsalt": "offloop",  # the same results make the same file
        "text.color": look.ink,
        "xtick.color": look.ink,
        "ytick.color": look.ink,
    }


def save(figure: pyplot.Figure, path: Path) -> list[Path]:
    files = [path.with_name(f"{path.name}.{kind}") for kind in ("svg", "png")]
    dates = {"svg": {"Date": None}, "png": {}}
    for file in files:
        figure.savefig(
            file,
            transparent=True,
            dpi=110,
            bbox_inches="tight",
            metadata=dates[file.suffix[1:]],
        )
    pyplot.close(figure)
    return files


def bars(
    results: dict, case: Case, key: str, heading: str, look: Look
) -> pyplot.Figure:
    """Draw a bar for each contender, the best on top."""
    metric = next(metric for metric in case.metrics if metric.key == key)
    values = {
        name: value
        for name, reports in results["cases"][case.name].items()
        if isinstance(value := middle(reports, key), (int, float))
    }
    names = sorted(values, key=values.__getitem__, reverse=metric.less_is_better)
    figure, axes = pyplot.subplots(figsize=(7.5, 0.6 + 0.29 * len(names)))
    colours = [look.ours if name.startswith(OURS) else look.others for name in names]
    drawn = axes.barh(
        [title(name).strip("*") for name in names],
        [values[name] for name in names],
        color=colours,
        height=0.7,
    )
    labels = [readable(values[name], metric.unit) for name in names]
    axes.bar_label(drawn, labels, padding=4, fontsize=9)
    wide = max(values.values()) > 30 * min(values.values())
    if wide and metric.less_is_better:
        axes.set_xscale("log")
        heading += " (logarithmic)"
    axes.margins(x=0.14)
    axes.tick_params(axis="y", length=0)
    axes.spines["bottom"].set_visible(False)
    axes.set_xticks([], [])
    axes.set_xticks([], [], minor=True)
    better = "less is better" if metric.less_is_better else "more is better"
    axes.set_title(f"{heading}; {better}", loc="left", fontsize=11)
    return figure


def curves(
    results: dict,
    case: Case,
    heading: str,
    label: str,
    who: tuple[str, ...],
    look: Look,
) -> pyplot.Figure:
    """Draw a line for each contender: seconds by what the keys of the case say."""
    figure, axes = pyplot.subplots(figsize=(7.5, 4.2))
    others = iter(look.lines)
    for name in who:
        reports = results["cases"][case.name].get(name, [{"cannot": ""}])
        values = {m.key: middle(reports, m.key) for m in case.metrics}
        points = [(float(k), v) for k, v in values.items() if isinstance(v, float)]
        if points:
            axes.plot(
                *zip(*points, strict=True),
                marker="o",
                markersize=4,
                label=title(name).strip("*"),
                linewidth=2.6 if name == OURS else 1.4,
                color=look.ours if name == OURS else next(others),
                linestyle="--" if name in case.floors else "-",
            )
    axes.set_xscale("log", base=2 if label == "bytes" else 10)
    axes.set_yscale("log")
    axes.set_xticks(
        [float(metric.key) for metric in case.metrics],
        [metric.label for metric in case.metrics],
    )
    axes.minorticks_off()
    axes.set_ylabel("seconds")
    axes.set_xlabel("" if label == "bytes" else label)
    axes.grid(color=look.grid, linewidth=0.6)
    axes.legend(frameon=False)
    axes.set_title(f"{heading}; less is better", loc="left", fontsize=11)
    return figure
