"""The report as CSV: fractions of 1, means over seeds, an empty field where a value is missing."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.report.aggregate import Stat, Summary
from mdprop.report.comparisons import HEADLINE, compare, value_of
from mdprop.report.confidence import UNKNOWN, Intervals
from mdprop.report.curves import METRICS, Curves
from mdprop.report.sets import Family, InputSet, corrupted_sets, families, input_sets

Row = Sequence[str | int | float | None]
Points = Mapping[str, Sequence[tuple[float, Stat | None]]]  # row of the table -> x and the metric there


def recall_points(summary: Summary) -> Points:
    """Clean Recall@K of every method, for each K that a method has."""
    metrics = {metric for sets in summary.values() for metric in sets.get(CLEAN, {})}
    ks = sorted(int(m[1]) for m in (re.fullmatch(r"recall_at_(\d+)", metric) for metric in metrics) if m)
    return {row: [(k, value_of(summary, row, CLEAN, f"recall_at_{k}")) for k in ks] for row in summary}


def robustness_points(summary: Summary, family: Family) -> Points:
    """Recall@1 of every method against epsilon, under the sets of one family; epsilon 0 is clean."""
    sets = (InputSet(CLEAN), *family.sets)
    return {
        method: [(s.epsilon or 0.0, value_of(summary, method, s.name, HEADLINE)) for s in sets]
        for method in summary
    }


def recall_csv(summary: Summary) -> str:
    """Columns method, k, recall: of clean images."""
    points = recall_points(summary)
    rows = [(method, k, _mean(stat)) for method, series in points.items() for k, stat in series]
    return csv_text(["method", "k", "recall"], rows)


def robustness_csv(summary: Summary, threats: Mapping[str, Threat]) -> str:
    """Recall@1 by epsilon, in `units`; `attack` names a curve: its goal, and more where that has several."""
    rows: list[Row] = []
    for family in families(input_sets(summary, threats)):
        threat = family.threat
        kind = (family.title, threat.goal, threat.norm, threat.units)
        for method, series in robustness_points(summary, family).items():
            rows += [(method, *kind, epsilon, _mean(stat)) for epsilon, stat in series]
    return csv_text(["method", "attack", "goal", "norm", "units", "epsilon", "recall_at_1"], rows)


def training_csv(curves: Curves) -> str:
    """A row an epoch of a run, with what was measured after it."""
    rows: list[Row] = []
    for run, metrics in curves.items():
        values = {key: dict(metrics.get(key, ())) for key in METRICS}
        for epoch in sorted({epoch for curve in values.values() for epoch in curve}):
            rows.append((run.method, run.seed, epoch, *(curve.get(epoch) for curve in values.values())))
    return csv_text(["method", "seed", "epoch", *METRICS], rows)


def table_csv(summary: Summary, threats: Mapping[str, Threat], intervals: Intervals = UNKNOWN) -> str:
    """Long form, a row a metric: mean, std and n, and the mean's difference from and ratio to `standard`.

    low, high: the interval of 95 %, of Recall@1 only.
    """
    rows: list[Row] = []
    for method, sets in summary.items():
        corrupted = map(InputSet, corrupted_sets({method: sets}, threats))
        for s in (*input_sets({method: sets}, threats), *corrupted):
            attack = (s.threat.goal, s.threat.norm, s.threat.units) if s.threat else (None, None, None)
            for metric, stat in sets[s.name].items():
                difference, ratio = compare(summary, method, s.name, metric)
                known = intervals.of(method, s.name) if metric == HEADLINE else None
                ends = (known.low, known.high) if known else (None, None)
                values = (stat["mean"], stat["std"], stat["n"], *ends, difference, ratio)
                rows.append((method, s.name, *attack, s.epsilon, metric, *values))
    attack_columns = ["goal", "norm", "units", "epsilon"]
    stat_columns = ["mean", "std", "n", "low", "high", "difference", "ratio"]
    return csv_text(["method", "input_set", *attack_columns, "metric", *stat_columns], rows)


def _mean(stat: Stat | None) -> float | None:
    return stat["mean"] if stat else None


def csv_text(header: Sequence[str], rows: Iterable[Row]) -> str:
    """Floats with six digits after the point, lines that end as on Unix."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([round(v, 6) if isinstance(v, float) else v for v in row] for row in rows)
    return text.getvalue()
