"""Line plots as SVG text: the same inputs, the same bytes."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mdprop.report.aggregate import Summary, method_of
from mdprop.report.csvs import Points, recall_points, robustness_points
from mdprop.report.curves import Curves
from mdprop.report.sets import NORM_LABELS, UNIT_LABELS, Family, InputSet, families

# Okabe and Ito's colours, which the colour-blind tell apart; markers say it a second time.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES = ("-", "--", ":", "-.")  # of the branches of one method
_STYLE: Any = {"svg.hashsalt": "mdprop", "svg.fonttype": "path", "font.size": 11, "axes.spines.top": False}
_STYLE |= {"axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd", "legend.frameon": False}

_SHORT = 10  # letters of a name, so that four fit beside each other below a plot
_FEW = 10  # points of a curve that are marked in the plot and named in words

Point = tuple[float, float, float]  # x, y, half the length of its bar
Series = Mapping[str, Sequence[Sequence[Point]]]  # row of the table -> one curve or more


@dataclass(frozen=True)
class Plot:
    """An SVG image with its title and, for those who cannot see it, its numbers in words."""

    title: str
    alt: str
    svg: str


def recall_plots(summary: Summary, sets: Iterable[InputSet]) -> list[Plot]:
    """Recall@1 against epsilon, a plot a family of sets, and clean Recall@K; bars: the spread."""
    plots = []
    for family in families(sets):
        title = f"Recall@1 under {family.threat.wants.label} examples"
        plots.append(
            _plot(
                f"{title}: {family.label}" if family.label else title,
                _radius(family),
                "Recall@1 (%)",
                _in_percent(robustness_points(summary, family)),
                ticks=sorted({0.0, *(s.epsilon or 0.0 for s in family.sets)}),
            )
        )
    points = recall_points(summary)
    ks = [k for k, _ in next(iter(points.values()), ())]
    if len(ks) > 1:
        plots.append(
            _plot("Recall@K on clean images", "K", "Recall@K (%)", _in_percent(points), ks, scale="log")
        )
    return plots


def _radius(family: Family) -> str:
    sign = "ε" if family.threat.norm == "linf" else f"{NORM_LABELS[family.threat.norm]} radius"
    return f"{sign} in {UNIT_LABELS[family.threat.units]}; 0 is clean"


def training_plots(curves: Curves) -> list[Plot]:
    """Loss and validation Recall@1 by epoch, a line a seed; methods without a curve are left out."""
    shown = (
        ("Training loss", "loss", "loss", 1.0),
        ("Recall@1 on validation classes", "validation_recall_at_1", "Recall@1 (%)", 100.0),
    )
    plots = []
    for title, key, y_label, scale in shown:
        series: dict[str, list[list[Point]]] = {}
        for run, metrics in curves.items():
            if metrics.get(key):
                points = [(float(epoch), scale * value, 0.0) for epoch, value in metrics[key]]
                series.setdefault(run.method, []).append(points)
        if series:
            plots.append(_plot(title, "epoch", y_label, series))
    return plots


def _in_percent(points: Points) -> Series:
    return {
        method: [
            [
                (x, 100 * stat["mean"], 100 * (stat["std"] or 0.0))
                for x, stat in series
                if stat and stat["mean"] is not None
            ]
        ]
        for method, series in points.items()
    }


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
        figure = Figure(figsize=(5.2, 3.9), layout="constrained")
        axes = figure.subplots()
        for row, look in _looks(series).items():
            _draw(axes, row, series[row], look)
        axes.set_xscale(scale)
        if ticks:
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
        else:
            axes.locator_params(axis="x", integer=True)
        axes.set(xlabel=x_label, ylabel=y_label)
        columns = 4 if max(map(len, series)) <= _SHORT else 2
        figure.legend(loc="outside lower center", ncols=columns, columnspacing=1.2, handlelength=1.8)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return Plot(title, _in_words(title, x_label, series), text.getvalue())


def _looks(rows: Iterable[str]) -> dict[str, dict[str, str]]:
    """A colour and a marker a method, a dash a branch of it."""
    methods: dict[str, list[str]] = {}
    for row in rows:
        methods.setdefault(method_of(row), []).append(row)
    return {
        row: {
            "color": _COLOURS[index % len(_COLOURS)],
            "marker": _MARKERS[index % len(_MARKERS)],
            "linestyle": _DASHES[branch % len(_DASHES)],
        }
        for index, rows_of_method in enumerate(methods.values())
        for branch, row in enumerate(rows_of_method)
    }


def _draw(axes: Axes, row: str, curves: Sequence[Sequence[Point]], look: Mapping[str, str]) -> None:
    marker = look["marker"] if max(map(len, curves)) <= _FEW else ""
    for first, curve in enumerate(curves):
        x, y, bars = zip(*curve, strict=True) if curve else ((), (), ())
        axes.errorbar(
            x,
            y,
            bars if any(bars) else None,
            label="_" if first else row,
            color=look["color"],
            linestyle=look["linestyle"],
            marker=marker,
            linewidth=1.5,
            markersize=4.5,
            capsize=2,
        )


def _in_words(title: str, x_label: str, series: Series) -> str:
    """Every point of a short curve, the ends of a long one."""
    parts = []
    for method, curves in series.items():
        for curve in curves:
            shown = curve if len(curve) <= _FEW else [curve[0], curve[-1]]
            parts.append(f"{method}: " + ", ".join(f"{y:.3g} at {x:g}" for x, y, _ in shown))
    return f"Line plot. {title}, by {x_label}. " + "; ".join(parts) + "."
