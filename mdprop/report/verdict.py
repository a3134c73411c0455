"""The page's first lines: what differs from a reference beyond its interval, in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mdprop.branches import CLEAN
from mdprop.report.aggregate import Summary, branch_of, method_of
from mdprop.report.comparisons import HEADLINE, mean_of, percent, points, span, value_of
from mdprop.report.confidence import Comparison, Intervals
from mdprop.report.sets import InputSet
from mdprop.runs import WORST_CASE


@dataclass(frozen=True)
class Verdict:
    """A row against a reference: a phrase for each of clean images, the worst case and the attacked sets.

    kind: "higher", "lower" or "same", of the worst case, or without one of clean images.
    """

    row: str
    phrases: tuple[str, ...]
    kind: str


def main_rows(summary: Summary) -> list[str]:
    """The rows that answer through the clean branch, and those of methods that have no such row."""
    clean = {row for row in summary if not branch_of(row)}
    return [row for row in summary if row in clean or method_of(row) not in clean]


def leader(summary: Summary, intervals: Intervals) -> str | None:
    """The row with the highest worst case, as a sentence; None without a worst case."""
    rows = [row for row in main_rows(summary) if value_of(summary, row, WORST_CASE, HEADLINE)]
    if not rows:
        return None
    best = max(rows, key=lambda row: mean_of(summary, row, WORST_CASE, HEADLINE) or 0.0)
    known = intervals.of(best, WORST_CASE)
    between = f" ({span(known)})" if known else ""
    share = percent(value_of(summary, best, WORST_CASE, HEADLINE))
    words = "is" if len(rows) == 1 else "has the highest worst case:"
    return f"{best} {words} right under every attack for {share} %{between} of the queries."


def verdicts(summary: Summary, sets: Iterable[InputSet], intervals: Intervals) -> dict[str, list[Verdict]]:
    """By reference, every main row that is compared with it."""
    attacked = [s.name for s in sets if s.threat and s.threat.wants.harms]
    found: dict[str, list[Verdict]] = {}
    for reference in intervals.against:
        for row in main_rows(summary):
            by_set = {name: intervals.comparison(row, name, reference) for name in (CLEAN, WORST_CASE)}
            shown = {name: comparison for name, comparison in by_set.items() if comparison}
            several = [c for name in attacked if (c := intervals.comparison(row, name, reference))]
            phrases = [_phrase(name, comparison) for name, comparison in shown.items()]
            phrases += [_tally(several)] if several else []
            if phrases:
                kind = _kind(
                    shown.get(WORST_CASE) or next(iter(shown.values()), several[0] if several else None)
                )
                found.setdefault(reference, []).append(Verdict(row, tuple(phrases), kind))
    return found


def _kind(comparison: Comparison | None) -> str:
    if comparison is None or not comparison.differs:
        return "same"
    return "higher" if comparison.difference.value > 0 else "lower"


def _phrase(name: str, comparison: Comparison) -> str:
    where = "clean images" if name == CLEAN else name.replace("_", " ")
    kind, between = _kind(comparison), span(comparison.difference, signed=True)
    size = points(comparison.difference.value)
    if kind == "same":
        return f"{where}: no difference beyond the interval, {size} points ({between})"
    ratio = f", ×{comparison.ratio.value:.2f}" if comparison.ratio else ""
    return f"{where}: {kind} by {size.lstrip('+-')} points ({between}){ratio}"


def _tally(comparisons: Sequence[Comparison]) -> str:
    kinds = [_kind(comparison) for comparison in comparisons]
    said = [f"{kind} on {kinds.count(kind)}" for kind in ("higher", "lower") if kind in kinds]
    sets = f"attacked sets: {{}} of {len(kinds)}" if len(kinds) > 1 else "the attacked set: {}"
    return sets.format(" and ".join(said) or "no difference beyond the interval on any")
