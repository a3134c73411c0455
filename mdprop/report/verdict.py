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

SIGNS = {"higher": "▲", "lower": "▼", "same": "=", "both": "±"}
"""Of what differs beyond its interval; "both": on some sets in one direction, on some in the other."""


@dataclass(frozen=True)
class Phrase:
    """kind: a key of `SIGNS`."""

    text: str
    kind: str


@dataclass(frozen=True)
class Verdict:
    """A row against a reference: a phrase for each of clean images, the worst case and the attacked sets."""

    row: str
    phrases: tuple[Phrase, ...]


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
                found.setdefault(reference, []).append(Verdict(row, tuple(phrases)))
    return found


def _kind(comparison: Comparison) -> str:
    if not comparison.differs:
        return "same"
    return "higher" if comparison.difference.value > 0 else "lower"


def _phrase(name: str, comparison: Comparison) -> Phrase:
    where = "clean images" if name == CLEAN else name.replace("_", " ")
    kind, between = _kind(comparison), span(comparison.difference, signed=True)
    size = points(comparison.difference.value)
    if kind == "same":
        return Phrase(f"{where}: no difference beyond the interval, {size} points ({between})", kind)
    ratio = f", ×{comparison.ratio.value:.2f}" if comparison.ratio else ""
    return Phrase(f"{where}: {kind} by {size.lstrip('+-')} points ({between}){ratio}", kind)


def _tally(comparisons: Sequence[Comparison]) -> Phrase:
    kinds = [_kind(comparison) for comparison in comparisons]
    there = [kind for kind in ("higher", "lower") if kind in kinds]
    said = " and ".join(f"{kind} on {kinds.count(kind)}" for kind in there) or "no difference on any"
    kind = "both" if len(there) == 2 else there[0] if there else "same"
    return Phrase(f"sets under attack: {said} of {len(kinds)}", kind)
