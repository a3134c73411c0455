"""The report as CSV: fractions of 1, means over seeds, an empty field where a value is missing."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence

from mdprop.methods import CLEAN, Goal
from mdprop.report.aggregate import Stat, Summary
from mdprop.report.tables import HEADLINE, compare, input_sets, value_of

Row = Sequence[str | int | float | None]


Points = list[tuple[float, dict[str, Stat | None]]]  # x, then the metric of each method


def recall_points(summary: Summary) -> Points:
    """Clean Recall@K of every method, for each K that a method has."""
    metrics = {metric for sets in summary.values() for metric in sets.get(CLEAN, {})}
    ks = sorted(int(m[1]) for m in (re.fullmatch(r"recall_at_(\d+)", metric) for metric in metrics) if m)
    return [
        (k, {method: value_of(summary, method, CLEAN, f"recall_at_{k}") for method in summary}) for k in ks
    ]


def robustness_points(summary: Summary, epsilons: Mapping[str, float], goal: Goal) -> Points:
    """Recall@1 of every method against epsilon, under the sets of one goal; epsilon 0 is clean."""
    return [
        (s.epsilon, {method: value_of(summary, method, s.name, HEADLINE) for method in summary})
        for s in input_sets(summary, epsilons)
        if (s.name == CLEAN or s.goal == goal) and s.epsilon is not None
    ]


def recall_csv(summary: Summary) -> str:
    """Columns k, then a method each: clean Recall@K."""
    return _write(["k", *summary], _mean_rows(recall_points(summary)))


def robustness_csv(summary: Summary, epsilons: Mapping[str, float], goal: Goal) -> str:
    """Columns epsilon (in the units of `epsilons`), then a method each: Recall@1."""
    return _write(["epsilon", *summary], _mean_rows(robustness_points(summary, epsilons, goal)))


def _mean_rows(points: Points) -> Iterable[Row]:
    return ((x, *(stat["mean"] if stat else None for stat in stats.values())) for x, stats in points)


def table_csv(summary: Summary, epsilons: Mapping[str, float]) -> str:
    """Long form, a row a metric: mean, std and n, and the mean's difference from and ratio to `standard`."""
    rows: list[Row] = []
    for method, sets in summary.items():
        for input_set in input_sets({method: sets}, epsilons):
            for metric, stat in sets[input_set.name].items():
                difference, ratio = compare(summary, method, input_set.name, metric)
                values = (stat["mean"], stat["std"], stat["n"], difference, ratio)
                rows.append((method, input_set.name, input_set.epsilon, metric, *values))
    header = ["method", "input_set", "epsilon", "metric", "mean", "std", "n", "difference", "ratio"]
    return _write(header, rows)


def _write(header: Sequence[str], rows: Iterable[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([round(v, 6) if isinstance(v, float) else v for v in row] for row in rows)
    return text.getvalue()
