"""Clean against attacked Recall@1, as a picture: a curve for each trained network or family of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mdprop.branches import CLEAN
from mdprop.report.intervals import recall_intervals
from mdprop.statistics import Interval
from mdprop.study.plan import Study
from mdprop.study.rows import Row, rows_of
from mdprop.study.tables import origin

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_MARKERS = "osD^vPX"
_STYLE: Any = {
    "svg.hashsalt": "mdprop",
    "svg.fonttype": "none",
    "font.size": 9.5,
    "font.family": "sans-serif",
}


class _Point(NamedTuple):
    label: str
    clean: Interval
    attacked: Interval


def plot(study: Study, folder: Path, name: str) -> tuple[str, str]:
    """One of the study's plots as SVG, and in words. Bars are intervals of 95 %."""
    wanted = study.plots[name]
    words: list[str] = []
    all_rows: list[Row] = []
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(6.6, 5.2), layout="constrained")
        axes = figure.subplots()
        for index, (curve, members) in enumerate(wanted.curves.items()):
            rows = rows_of(study, folder, members)
            all_rows += rows.values()
            if points := _points(rows, wanted.attacked):
                _draw(axes, curve, points, index)
                words.append(f"{curve}: " + ", ".join(map(_in_words, points)))
        axes.set(xlabel="clean Recall@1 (%)", ylabel="attacked Recall@1 (%)", title=wanted.title)
        axes.grid(alpha=0.3)
        if words:
            figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    described = (
        f"{wanted.title}, clean and attacked Recall@1 in %. {'; '.join(words)}. {origin(all_rows, folder)}"
    )
    return text.getvalue(), described.replace("[", "(").replace("]", ")").replace("`", "")


def _points(rows: Mapping[str, Row], attacked: str) -> list[_Point]:
    """Of the rows that have both."""
    found = recall_intervals({label: row.hits([CLEAN, attacked]) for label, row in rows.items()})
    return [
        _Point(label, sets[CLEAN], sets[attacked])
        for label, sets in found.items()
        if CLEAN in sets and attacked in sets
    ]


def _draw(axes: Axes, curve: str, points: Sequence[_Point], index: int) -> None:
    """A curve's points, each with its label where there are several."""
    x, y = [100 * point.clean.value for point in points], [100 * point.attacked.value for point in points]
    colour = _COLOURS[index % len(_COLOURS)]
    axes.errorbar(
        x,
        y,
        xerr=_reach([point.clean for point in points]),
        yerr=_reach([point.attacked for point in points]),
        label=curve,
        color=colour,
        marker=_MARKERS[index % len(_MARKERS)],
        markersize=5,
        linewidth=1.4,
        elinewidth=0.6,
        capsize=2,
    )
    if len(points) == 1:
        return
    for number, (point, at_x, at_y) in enumerate(zip(points, x, y, strict=True)):
        place = (4, 4) if number else (4, -10)  # the ends of a short curve keep apart
        axes.annotate(
            point.label, (at_x, at_y), xytext=place, textcoords="offset points", fontsize=7, color=colour
        )


def _in_words(point: _Point) -> str:
    return f"{point.label} {100 * point.clean.value:.1f} and {100 * point.attacked.value:.1f}"


def _reach(intervals: Sequence[Interval]) -> list[list[float]]:
    """How far each interval reaches below and above its value, in %: as matplotlib takes bars."""
    return [
        [100 * (i.value - i.low) for i in intervals],
        [100 * (i.high - i.value) for i in intervals],
    ]
