"""Recall@1 of experiments with its intervals: against the parameter that they sweep, or by name."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes

from mdprop.branches import CLEAN
from mdprop.experiments.comparison import Compared, Line
from mdprop.report.csvs import csv_text
from mdprop.report.drawing import Plot, Point, bars, drawn, line_plot, looks

_RECALL = "Recall@1 (%)"
_EACH = 0.2  # inches a point
_NAME = 18  # letters of an experiment's name in a line
_SPREAD = 0.6  # of the room between two experiments that their methods share


def comparison_plots(compared: Compared) -> list[Plot]:
    """One for clean images and one for the worst case, or, without that, for each input set."""
    swept = swept_parameter(compared)
    return [
        _by_value(compared, name, swept) if swept else _by_name(compared, name) for name in compared.headline
    ]


def swept_parameter(compared: Compared) -> str | None:
    """The one parameter that differs, where it is another number in each of three experiments or more."""
    if len(compared.differing) != 1:
        return None
    values = [e.parameters.get(compared.differing[0]) for e in compared.experiments]
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
    return compared.differing[0] if len(set(numbers)) == len(values) > 2 else None


def _title(input_set: str) -> str:
    return f"Recall@1, {'clean images' if input_set == CLEAN else input_set.replace('_', ' ')}"


def _by_value(compared: Compared, input_set: str, key: str) -> Plot:
    series: dict[str, list[list[Point]]] = {}
    for line in compared.lines:
        if input_set in line.recall:
            point = _upright(line, input_set, float(line.experiment.parameters[key]))
            series.setdefault(line.method, [[]])[0].append(point)
    ordered = {method: [sorted(curve) for curve in curves] for method, curves in series.items()}
    ticks = sorted({point.x for (curve,) in ordered.values() for point in curve})
    return line_plot(_title(input_set), key, _RECALL, ordered, ticks)


def _upright(line: Line, input_set: str, x: float) -> Point:
    recall = line.recall[input_set]
    return Point(x, 100 * recall.value, 100 * recall.low, 100 * recall.high)


def _by_name(compared: Compared, input_set: str) -> Plot:
    """Experiments below each other, the first on top, and the methods of each a little apart."""
    names = [e.name for e in compared.experiments]
    lines = [line for line in compared.lines if input_set in line.recall]
    methods = list(dict.fromkeys(line.method for line in lines))
    series: dict[str, list[Point]] = {method: [] for method in methods}
    for line in lines:
        apart = (methods.index(line.method) - (len(methods) - 1) / 2) * _SPREAD / len(methods)
        x, y, low, high = _upright(line, input_set, names.index(line.experiment.name) + apart)[:4]
        series[line.method].append(Point(y, x, left=low, right=high))

    def draw(axes: Axes) -> None:
        for method, look in looks(series).items():
            bars(axes, series[method], **{**look, "linestyle": "none"}, label=method)
        axes.set_yticks(range(len(names)), [textwrap.fill(name, _NAME) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=_RECALL)

    title = _title(input_set)
    alt = f"Dot plot. {title}. {_in_words(lines, input_set)}"
    rows = [(line.experiment.name, line.method, *_upright(line, input_set, 0)[1:4]) for line in lines]
    csv = csv_text(["experiment", "method", _RECALL, "low", "high"], rows)
    return Plot(title, alt, drawn(title, alt, draw, methods, height=max(3.9, 1 + _EACH * len(lines))), csv)


def _in_words(lines: Sequence[Line], input_set: str) -> str:
    found = (f"{li.experiment.name}, {li.method}: {100 * li.recall[input_set].value:.3g}" for li in lines)
    return "; ".join(found) + "."
