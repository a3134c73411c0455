"""Numbers of the paper's table: methods by input distributions, against the standard method.

Numbers are fractions of 1 here; texts are in percent.
"""

from __future__ import annotations

import math

from mdprop.branches import CLEAN
from mdprop.report.aggregate import Stat, Summary
from mdprop.statistics import Interval

STANDARD = "standard"
HEADLINE = "recall_at_1"
MISSING = "–"
MARK = "*"
"""What differs beyond its interval."""


def value_of(summary: Summary, method: str, input_set: str, metric: str) -> Stat | None:
    """The metric, or None where it is missing or undefined."""
    stat = summary.get(method, {}).get(input_set, {}).get(metric)
    return stat if stat and stat["mean"] is not None else None


def mean_of(summary: Summary, method: str, input_set: str, metric: str) -> float | None:
    stat = value_of(summary, method, input_set, metric)
    return stat["mean"] if stat else None


def compare(summary: Summary, method: str, input_set: str, metric: str) -> tuple[float | None, float | None]:
    """Difference from and ratio to the standard method, both of means over seeds.

    None where either is missing; the ratio also where the standard method has 0.
    """
    ours = mean_of(summary, method, input_set, metric)
    theirs = mean_of(summary, STANDARD, input_set, metric)
    if ours is None or theirs is None:
        return None, None
    return ours - theirs, ours / theirs if theirs else None


def percent(stat: Stat | None, between: str = " ") -> str:
    """`78.9 ± 0.4`, in percent; the spread only over two seeds or more."""
    return number(stat, decimals=1, scale=100, between=between)


def number(
    stat: Stat | None, *, decimals: int, scale: float = 1, between: str = " ", spread: bool = True
) -> str:
    """`0.789 ± 0.004`; the spread, where it is asked for, only over two seeds or more."""
    if stat is None or stat["mean"] is None:
        return MISSING
    text = f"{scale * stat['mean']:.{decimals}f}"
    if stat["n"] < 2 or not spread:
        return text
    return f"{text}{between}±{between}{scale * (stat['std'] or 0.0):.{decimals}f}"


def comparison(
    summary: Summary, method: str, input_set: str, metric: str = HEADLINE, *, times: str = "x"
) -> str:
    """`+1.6` points for clean, the ratio `x2.12` for adversarial sets; points where that is undefined."""
    difference, ratio = compare(summary, method, input_set, metric)
    if method == STANDARD or difference is None:
        return ""
    if input_set == CLEAN or ratio is None:
        return points(difference)
    return f"{times}{ratio:.2f}"


def points(difference: float) -> str:
    return f"{round(100 * difference, 1) + 0.0:+.1f}"  # + 0.0: no minus zero


def span(interval: Interval, *, decimals: int = 1, scale: float = 100, signed: bool = False) -> str:
    """`81.2–84.9`, in percent; `-0.3 to +1.2` where the numbers have signs."""
    form = f"{'+' if signed else ''}.{decimals}f"
    ends = (scale * end for end in (interval.low, interval.high))
    texts = [f"{round(end, decimals) + 0.0:{form}}" if math.isfinite(end) else "∞" for end in ends]
    return (" to " if signed else "–").join(texts)


def short_span(interval: Interval) -> str:
    """`81–85`; with a decimal where whole percents say too little."""
    fine = interval.high - interval.low < 0.01 or interval.high < 0.1
    return span(interval, decimals=1 if fine else 0)


def spread_note(summary: Summary, metric: str = HEADLINE, *, spread: bool = True) -> str:
    """What the numbers of a table are taken over.

    spread: whether the table shows it.
    """
    counts = _seeds(summary, metric)
    if max(counts, default=1) < 2:
        return "one seed"
    seeds = f"{max(counts)} seeds" if len(counts) == 1 else f"{min(counts)} to {max(counts)} seeds"
    return f"mean{' ± sample standard deviation' if spread else ''} over {seeds}"


def interval_note(summary: Summary) -> str:
    """What the intervals of Recall@1 are taken over."""
    queries = "over queries, as if other classes had been drawn"
    if max(_seeds(summary, HEADLINE), default=1) < 2:
        return queries
    return f"over seeds, by Student's t, or, where these all agree, {queries}"


def _seeds(summary: Summary, metric: str) -> set[int]:
    """How many seeds the rows have, in the sets that have the metric."""
    found = [metrics for sets in summary.values() for metrics in sets.values() if metric in metrics]
    return {metrics[metric]["n"] for metrics in found}
