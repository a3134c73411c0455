"""Which plots the page shows: of recall, of the trade between clean and attacked images, of training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes

from mdprop.branches import CLEAN
from mdprop.report.aggregate import Stat, Summary
from mdprop.report.comparisons import HEADLINE, mean_of, value_of
from mdprop.report.confidence import UNKNOWN, Intervals
from mdprop.report.csvs import recall_points
from mdprop.report.curves import Curves
from mdprop.report.drawing import TEXT, Plot, Point, Series, bars, drawn, line_plot, looks, series_csv
from mdprop.report.sets import NORM_LABELS, UNIT_LABELS, Family, InputSet, families, step_families
from mdprop.runs import WORST_CASE

TRADE = "Recall@1 of clean images and in the worst case"
_FRONT = "better in both is none"
_X, _Y = "Recall@1 on clean images (%)", "Recall@1 in the worst case (%)"


def recall_plots(summary: Summary, sets: Sequence[InputSet], intervals: Intervals = UNKNOWN) -> list[Plot]:
    """Recall@1 against epsilon and against steps, a plot a family of several sets, and clean Recall@K."""
    plots = [_epsilon_plot(summary, f, intervals) for f in families(sets) if len(f.sets) > 1]
    for family in step_families(sets):
        ticks = [float(s.threat.steps) for s in family.sets if s.threat]
        series = {
            row: [
                [point(summary, intervals, row, s.name, t) for t, s in zip(ticks, family.sets, strict=True)]
            ]
            for row in summary
        }
        title = f"Recall@1 by steps: {family.title}"
        plots.append(line_plot(title, "steps", "Recall@1 (%)", _known(series), ticks, scale="log"))
    points = recall_points(summary)
    ks = [k for k, _ in next(iter(points.values()), ())]
    if len(ks) > 1:
        curves = {row: [[_spread(k, stat) for k, stat in series]] for row, series in points.items()}
        plots.append(
            line_plot("Recall@K on clean images", "K", "Recall@K (%)", _known(curves), ks, scale="log")
        )
    return plots


def _epsilon_plot(summary: Summary, family: Family, intervals: Intervals) -> Plot:
    sets = (InputSet(CLEAN), *family.sets)
    title = f"Recall@1 under {family.threat.wants.label} examples"
    return line_plot(
        f"{title}: {family.label}" if family.label else title,
        _radius(family),
        "Recall@1 (%)",
        _known(
            {
                row: [[point(summary, intervals, row, s.name, s.epsilon or 0.0) for s in sets]]
                for row in summary
            }
        ),
        ticks=sorted({s.epsilon or 0.0 for s in sets}),
        levels=family.threat.norm == "linf" and family.threat.units == "pixel",
    )


def _radius(family: Family) -> str:
    sign = "ε" if family.threat.norm == "linf" else f"{NORM_LABELS[family.threat.norm]} radius"
    return f"{sign} in {UNIT_LABELS[family.threat.units]}; 0 is clean"


def point(summary: Summary, intervals: Intervals, row: str, input_set: str, x: float) -> Point | None:
    """Recall@1 in percent at x, with its interval, or where that is not known the spread over seeds."""
    known = intervals.of(row, input_set)
    found = _spread(x, value_of(summary, row, input_set, HEADLINE))
    return found._replace(low=100 * known.low, high=100 * known.high) if found and known else found


def _spread(x: float, stat: Stat | None) -> Point | None:
    if stat is None or stat["mean"] is None:
        return None
    y, half = 100 * stat["mean"], 100 * (stat["std"] or 0.0)
    return Point(x, y, y - half, y + half) if half else Point(x, y)


def _known(series: Mapping[str, Sequence[Sequence[Point | None]]]) -> Series:
    return {row: [[p for p in curve if p] for curve in curves] for row, curves in series.items()}


def trade_plot(summary: Summary, intervals: Intervals = UNKNOWN) -> Plot | None:
    """Clean Recall@1 against the worst case, a point a row; None where no row has both."""
    points: dict[str, Point] = {}
    for row in summary:
        x = mean_of(summary, row, CLEAN, HEADLINE)
        found = point(summary, intervals, row, WORST_CASE, 100 * x) if x is not None else None
        if found:
            known = intervals.of(row, CLEAN)
            ends = {"left": 100 * known.low, "right": 100 * known.high} if known else {}
            points[row] = found._replace(**ends)
    if not points:
        return None
    front = pareto_front(points)

    def draw(axes: Axes) -> None:
        for row, look in looks(points).items():
            bars(axes, [points[row]], **{**look, "linestyle": "none"}, label=row)
        edge = [points[row].x for row in front], [points[row].y for row in front]
        axes.step(*edge, where="pre", color=TEXT, linewidth=1.2, linestyle=":", label=_FRONT)
        axes.set(xlabel=_X, ylabel=_Y)

    words = "; ".join(f"{row}: {p.x:.3g} clean, {p.y:.3g} worst case" for row, p in points.items())
    alt = f"Scatter plot. {TRADE}. {words}. Better than these in both is none: {', '.join(front)}."
    series = {row: [[p]] for row, p in points.items()}
    svg = drawn(TRADE, alt, draw, [*points, _FRONT])
    return Plot(TRADE, alt, svg, series_csv(_X, _Y, series))


def pareto_front(points: Mapping[str, Point]) -> list[str]:
    """The rows that no other one beats in one coordinate without losing in the other, by growing x."""

    def beaten(row: str) -> bool:
        own = points[row]
        return any(p.x >= own.x and p.y >= own.y and (p.x, p.y) != (own.x, own.y) for p in points.values())

    return sorted((row for row in points if not beaten(row)), key=lambda row: points[row].x)


def target_plots(
    summary: Summary, ablations: Iterable[Mapping[int, str]], intervals: Intervals = UNKNOWN
) -> list[Plot]:
    """Recall@1 against the number of targets T of training, of methods that differ in nothing else.

    ablations: T -> method.
    """
    plots = []
    for methods in ablations:
        shown = [name for name in (CLEAN, WORST_CASE) if any(mean_of(summary, m, name, HEADLINE) is not None
                 for m in methods.values())]  # fmt: skip
        series = {
            name.replace("_", " "): [
                [point(summary, intervals, m, name, t) for t, m in sorted(methods.items())]
            ]
            for name in shown
        }
        title = f"Recall@1 by targets T: {', '.join(methods[t] for t in sorted(methods))}"
        ticks = [float(t) for t in sorted(methods)]
        plots.append(line_plot(title, "targets T of training", "Recall@1 (%)", _known(series), ticks))
    return plots


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
                points = [Point(float(epoch), scale * value) for epoch, value in metrics[key]]
                series.setdefault(run.method, []).append(points)
        if series:
            plots.append(line_plot(title, "epoch", y_label, series))
    return plots
