"""The tables of the page, as rows of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

from mdprop.branches import CLEAN
from mdprop.report.aggregate import Stat, Summary
from mdprop.report.comparisons import (
    HEADLINE,
    MARK,
    MISSING,
    comparison,
    number,
    percent,
    points,
    span,
    value_of,
)
from mdprop.report.confidence import UNKNOWN, Comparison, Intervals
from mdprop.report.csvs import csv_text
from mdprop.report.sets import InputSet
from mdprop.runs import SCORE

# group, metric, head, decimals (None: in percent)
_EMBEDDING_COLUMNS: tuple[tuple[str, str, str, int | None], ...] = (
    ("retrieval and clusters, %", "map_at_r", "mAP@R", None),
    ("retrieval and clusters, %", "map_at_1000", "mAP@1000", None),
    ("retrieval and clusters, %", "nmi", "NMI", None),
    ("retrieval and clusters, %", "f1", "F1", None),
    ("density", "density_intra", "intra-class", 3),
    ("density", "density_inter", "inter-class", 3),
    ("density", "density_ratio", "intra / inter", 3),
    ("spectrum", "spectral_decay", "decay", 3),
)


@dataclass(frozen=True)
class Cell:
    """A number as text, its interval and the like in lines below it, and a comparison in a line of its own.

    differs: whether the comparison, or where there is none the number itself, is one beyond its interval.
    value: the number, as it is stored; rows are sorted by it.
    """

    text: str
    below: tuple[str, ...] = ()
    note: str = ""
    differs: bool = False
    value: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Table:
    """groups: heads that span several columns, with their spans; empty for a table with one row of heads.

    smaller: a second line of each head, empty where there is none.
    """

    caption: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    groups: Sequence[tuple[str, int]] = field(default=())
    corner: str = "method"
    smaller: Sequence[str] = ()

    @property
    def csv(self) -> str:
        """A column a column, and one more for each further line that its cells have."""
        groups = [name for name, count in self.groups for _ in range(count)] or [""] * len(self.heads)
        smaller = self.smaller or [""] * len(self.heads)
        names = [" ".join(filter(None, parts)) for parts in zip(groups, self.heads, smaller, strict=True)]
        columns: list[list[str]] = []
        for at, name in enumerate(names):
            cells = [[cells[at].text, *cells[at].below, cells[at].note] for _, cells in self.rows]
            width = max(map(len, cells), default=1)
            lines = [[*own[:-1], *[""] * (width - len(own)), own[-1]] for own in cells]
            heads = [name, *(f"{name}, line {line}" for line in range(2, width + 1))]
            columns += [
                [head, *column]
                for head, *column in zip(heads, *lines, strict=True)
                if head == name or any(column)
            ]
        rows = zip([self.corner, *(label for label, _ in self.rows)], *columns, strict=True)
        header, *rest = rows
        return csv_text(header, rest)


def recall_table(
    summary: Summary,
    sets: Sequence[InputSet],
    metric: str,
    caption: str,
    intervals: Intervals = UNKNOWN,
) -> Table | None:
    """Methods by the input sets that have the metric, in percent.

    intervals: of Recall@1; for other metrics there are none.
    """
    known = intervals if metric == HEADLINE else UNKNOWN
    shown = _with_metric(summary, sets, metric)
    columns = [[_recall_cell(summary, method, s.name, metric, known) for method in summary] for s in shown]
    return _by_sets(list(summary), shown, columns, caption)


def _recall_cell(summary: Summary, method: str, input_set: str, metric: str, intervals: Intervals) -> Cell:
    known = intervals.of(method, input_set)
    note = comparison(summary, method, input_set, metric, times="×")
    differs = bool(note) and intervals.differs(method, input_set)
    stat = value_of(summary, method, input_set, metric)
    below = (span(known),) if known else ()
    mark = MARK if differs else ""
    return Cell(percent(stat), below, f"{note}{mark}", differs, _mean(stat))


def _mean(stat: Stat | None) -> float | None:
    return stat["mean"] if stat else None


def against_table(sets: Sequence[InputSet], intervals: Intervals, reference: str) -> Table | None:
    """Rows that are compared with the reference by input sets, each comparison with its interval."""
    rows = [row for row, found in intervals.against.get(reference, {}).items() if found]
    shown = [s for s in sets if any(intervals.comparison(row, s.name, reference) for row in rows)]
    columns = [[_against_cell(intervals.comparison(row, s.name, reference)) for row in rows] for s in shown]
    return _by_sets(rows, shown, columns, f"Recall@1 against {reference}, difference in points")


def _against_cell(found: Comparison | None) -> Cell:
    """The difference, its interval, the ratio and its interval."""
    if found is None:
        return Cell(MISSING)
    below = [span(found.difference, signed=True)]
    if found.ratio is not None:
        below.append(f"×{found.ratio.value:.2f}, {span(found.ratio, decimals=2, scale=1)}")
    mark = MARK if found.differs else ""
    text = f"{points(found.difference.value)}{mark}"
    return Cell(text, tuple(below), differs=found.differs, value=found.difference.value)


def distance_table(summary: Summary, sets: Sequence[InputSet], metric: str, caption: str) -> Table | None:
    """Methods by the input sets that have the metric, as a plain number."""
    shown = _with_metric(summary, sets, metric)
    columns = [[_plain(value_of(summary, method, s.name, metric), 3) for method in summary] for s in shown]
    return _by_sets(list(summary), shown, columns, caption)


def _plain(stat: Stat | None, decimals: int | None) -> Cell:
    """decimals: None for a number in percent."""
    text = percent(stat) if decimals is None else number(stat, decimals=decimals)
    return Cell(text, value=_mean(stat))


def _with_metric(summary: Summary, sets: Sequence[InputSet], metric: str) -> list[InputSet]:
    return [s for s in sets if any(value_of(summary, method, s.name, metric) for method in summary)]


def _by_sets(
    names: Sequence[str], sets: Sequence[InputSet], columns: Sequence[Sequence[Cell]], caption: str
) -> Table | None:
    """None without a column."""
    if not columns:
        return None
    rows = [(name, [column[i] for column in columns]) for i, name in enumerate(names)]
    groups = [(name, len(list(members))) for name, members in groupby(s.group for s in sets)]
    smaller = [s.levels for s in sets] if any(s.levels for s in sets) else ()
    return Table(caption, [s.label for s in sets], rows, groups, smaller=smaller)


def embedding_table(summary: Summary) -> Table | None:
    """Measures of the clean embedding space that a method has."""
    present = [c for c in _EMBEDDING_COLUMNS if any(value_of(summary, m, CLEAN, c[1]) for m in summary)]
    if not present:
        return None
    columns = []
    for _, metric, _, decimals in present:
        columns.append([_plain(value_of(summary, method, CLEAN, metric), decimals) for method in summary])
    rows = [(method, [column[i] for column in columns]) for i, method in enumerate(summary)]
    groups = [(name, len(list(members))) for name, members in groupby(c[0] for c in present)]
    return Table("The embedding space of clean images", [c[2] for c in present], rows, groups)


_SCORE_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("score", "empirical_robustness_score", "ERS"),
    ("clean", "recall_at_1", "Recall@1, %"),
    ("clean", "spread", "spread"),
    ("candidate, %", "ca_plus", "CA+"),
    ("candidate, %", "ca_minus", "CA−"),
    ("query, %", "qa_plus", "QA+"),
    ("query, %", "qa_minus", "QA−"),
    ("target", "tma", "TMA"),
    ("shift", "esd", "ESD"),
    ("shift", "es_recall", "ESR, %"),
    ("misrank, %", "ltm", "LTM"),
    ("misrank, %", "gtm", "GTM"),
    ("misrank, %", "gtt", "GTT"),
)


def score_table(summary: Summary) -> Table | None:
    """RobRank's score beside its parts and clean Recall@1; None where no method has it."""
    rows = []
    for method in summary:
        stats = {key: value_of(summary, method, SCORE, key) for _, key, _ in _SCORE_COLUMNS}
        if stats["empirical_robustness_score"]:
            cells = [_plain(stat, None if key == HEADLINE else 2) for key, stat in stats.items()]
            rows.append((method, cells))
    if not rows:
        return None
    groups = [(name, len(list(members))) for name, members in groupby(c[0] for c in _SCORE_COLUMNS)]
    return Table("The Empirical Robustness Score and its parts", [c[2] for c in _SCORE_COLUMNS], rows, groups)
