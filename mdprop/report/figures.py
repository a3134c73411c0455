"""Line plots as SVG text: the same inputs, the same bytes."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from mdprop.errors import ResultError
from mdprop.methods import GOALS
from mdprop.report.aggregate import REMEDY, Summary
from mdprop.report.csvs import Points, recall_points, robustness_points
from mdprop.report.tables import GOAL_LABELS, UNIT_LABELS

# Okabe and Ito's colours, which the colour-blind tell apart; markers say it a second time.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_STYLE: Any = {"svg.hashsalt": "mdprop", "svg.fonttype": "path", "font.size": 11, "axes.spines.top": False}
_STYLE |= {"axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd", "legend.frameon": False}

_FEW = 10  # points of a curve that are marked in the plot and named in words

Point = tuple[float, float, float]  # x, y, half the length of its bar
Series = Mapping[str, Sequence[Sequence[Point]]]  # method -> one curve or more


@dataclass(frozen=True)
class Plot:
    """An SVG image with its title and, for those who cannot see it, its numbers in words."""

    title: str
    alt: str
    svg: str


def recall_plots(summary: Summary, epsilons: Mapping[str, float], units: str) -> list[Plot]:
    """Recall@1 against epsilon, a plot a goal that has sets, and clean Recall@K; bars: the spread."""
    plots = []
    for goal in GOALS:
        points = robustness_points(summary, epsilons, goal)
        if any(x > 0 for x, _ in points):
            title = f"Recall@1 under {GOAL_LABELS[goal]} examples"
            x_label = f"ε in {UNIT_LABELS[units]}; 0 is clean"
            ticks = [x for x, _ in points]
            plots.append(_plot(title, x_label, "Recall@1 (%)", _in_percent(summary, points), ticks))
    points = recall_points(summary)
    if len(points) > 1:
        series = _in_percent(summary, points)
        ticks = [x for x, _ in points]
        plots.append(_plot("Recall@K on clean images", "K", "Recall@K (%)", series, ticks, scale="log"))
    return plots


def training_plots(live_dir: Path, methods: Iterable[str], seeds: Sequence[int]) -> list[Plot]:
    """The curves that dvclive wrote below `live_dir`/<method>/<seed>, one a seed; those without are left out.

    Raises `ResultError` where a file is not the table of a curve.
    """
    curves = (
        ("Training loss", "train/loss", "loss", 1.0),
        ("Recall@1 on validation classes", "validation/recall_at_1", "Recall@1 (%)", 100.0),
    )
    plots = []
    for title, metric, y_label, scale in curves:
        series: dict[str, list[list[Point]]] = {}
        for method in methods:
            paths = [live_dir / method / str(seed) / "plots" / "metrics" / f"{metric}.tsv" for seed in seeds]
            read = [_read_curve(path, scale) for path in paths if path.exists()]
            if any(read):
                series[method] = [curve for curve in read if curve]
        if series:
            plots.append(_plot(title, "epoch", y_label, series))
    return plots


def _read_curve(path: Path, scale: float) -> list[Point]:
    """The columns `step` and the file's own name of a dvclive table."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(float(r["step"]), float(r[path.stem])) for r in csv.DictReader(file, delimiter="\t")]
    except (KeyError, TypeError, ValueError) as error:
        what = f"{path} is no table of step and {path.stem} ({error!r})"
        raise ResultError(f"{what}: delete it and {REMEDY}") from None
    return [(x, scale * y, 0.0) for x, y in rows if math.isfinite(y)]


def _in_percent(summary: Summary, points: Points) -> Series:
    series = {}
    for method in summary:
        known = [(x, stats[method]) for x, stats in points]
        series[method] = [
            [(x, 100 * s["mean"], 100 * (s["std"] or 0.0)) for x, s in known if s and s["mean"] is not None]
        ]
    return series


def _plot(
    title: str,
    x_label: str,
    y_label: str,
    series: Series,
    ticks: Sequence[float] | None = None,
    scale: str = "linear",
) -> Plot:
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(5.2, 3.5), layout="constrained")
        axes = figure.subplots()
        for index, (method, curves) in enumerate(series.items()):
            look: dict[str, Any] = {
                "color": _COLOURS[index % len(_COLOURS)],
                "marker": _MARKERS[index % len(_MARKERS)] if max(map(len, curves)) <= _FEW else "",
            }
            for first, curve in enumerate(curves):
                x, y, bars = zip(*curve, strict=True) if curve else ((), (), ())
                label = "_" if first else method
                yerr = bars if any(bars) else None
                axes.errorbar(x, y, yerr, label=label, linewidth=1.5, markersize=4.5, capsize=2, **look)
        axes.set_xscale(scale)
        if ticks:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        else:
            axes.locator_params(axis="x", integer=True)
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.legend()
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return Plot(title, _in_words(title, x_label, series), text.getvalue())


def _in_words(title: str, x_label: str, series: Series) -> str:
    """Every point of a short curve, the ends of a long one."""
    parts = []
    for method, curves in series.items():
        for curve in curves:
            shown = curve if len(curve) <= _FEW else [curve[0], curve[-1]]
            parts.append(f"{method}: " + ", ".join(f"{y:.3g} at {x:g}" for x, y, _ in shown))
    return f"Line plot. {title}, by {x_label}. " + "; ".join(parts) + "."
