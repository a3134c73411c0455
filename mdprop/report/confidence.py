"""Intervals of Recall@1 and comparisons with a reference: what is known of them, and as a file.

`mdprop.report.intervals` finds them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mdprop.errors import ResultError
from mdprop.files import read_sealed_json, sealed_json
from mdprop.report.aggregate import REMEDY, Summary
from mdprop.report.comparisons import HEADLINE, STANDARD, mean_of
from mdprop.statistics import Interval


@dataclass(frozen=True)
class Comparison:
    """Recall@1 of a row against that of a reference, on what both have.

    ratio: None for clean images, and where the reference finds nothing.
    """

    difference: Interval
    ratio: Interval | None

    @property
    def differs(self) -> bool:
        """Whether the two differ beyond the interval of their difference."""
        return self.difference.excludes(0.0)


@dataclass(frozen=True)
class Intervals:
    """recall: row -> input set. against: reference -> row -> input set."""

    recall: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    against: Mapping[str, Mapping[str, Mapping[str, Comparison]]] = field(default_factory=dict)

    def of(self, row: str, input_set: str) -> Interval | None:
        return self.recall.get(row, {}).get(input_set)

    def comparison(self, row: str, input_set: str, reference: str = STANDARD) -> Comparison | None:
        return self.against.get(reference, {}).get(row, {}).get(input_set)

    def differs(self, row: str, input_set: str) -> bool:
        """Whether Recall@1 differs from that of `standard` beyond the interval of the difference."""
        found = self.comparison(row, input_set)
        return found is not None and found.differs


UNKNOWN = Intervals()


def intervals_json(intervals: Intervals) -> str:
    """report/intervals.json: {"recall_at_1": {row: {input set: {"low", "high"}}}, "against": {reference:
    {row: {input set: {"difference", "ratio": {"value", "low", "high"}, "differs"}}}}}.

    A `high` of null is infinite; `ratio` is null where there is none.
    """
    content = {
        HEADLINE: {row: {s: _ends(i) for s, i in sets.items()} for row, sets in intervals.recall.items()},
        "against": {
            reference: {row: {s: _compared(c) for s, c in sets.items()} for row, sets in rows.items()}
            for reference, rows in intervals.against.items()
        },
    }
    return sealed_json(content, allow_nan=False)


def _ends(interval: Interval) -> dict[str, float | None]:
    return {"low": interval.low, "high": interval.high if math.isfinite(interval.high) else None}


def _compared(comparison: Comparison) -> dict[str, Any]:
    def whole(interval: Interval) -> dict[str, float | None]:
        return {"value": interval.value, **_ends(interval)}

    return {
        "difference": whole(comparison.difference),
        "ratio": whole(comparison.ratio) if comparison.ratio else None,
        "differs": comparison.differs,
    }


def load_intervals(path: Path, summary: Summary) -> Intervals:
    """Read a report/intervals.json back, beside the summary that has its means; none where there is no file.

    Raises `ResultError`.
    """
    if not path.exists():
        return UNKNOWN
    content = read_sealed_json(path, REMEDY)
    try:
        recall = {
            row: {
                name: _interval({"value": mean_of(summary, row, name, HEADLINE) or 0.0, **ends})
                for name, ends in sets.items()
            }
            for row, sets in content[HEADLINE].items()
        }
        against = {
            reference: {
                row: {name: _comparison(found) for name, found in sets.items()} for row, sets in rows.items()
            }
            for reference, rows in content["against"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ResultError(f"{path} does not hold the intervals of a report: {REMEDY}") from None
    return Intervals(recall, against)


def _interval(ends: Mapping[str, Any]) -> Interval:
    high = math.inf if ends["high"] is None else float(ends["high"])
    return Interval(float(ends["value"]), float(ends["low"]), high)


def _comparison(found: Mapping[str, Any]) -> Comparison:
    return Comparison(_interval(found["difference"]), _interval(found["ratio"]) if found["ratio"] else None)
