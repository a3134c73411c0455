"""The tables of the page, as rows of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.report.aggregate import Summary
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
from mdprop.report.sets import NORM_LABELS, InputSet
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
    """

    text: str
    below: tuple[str, ...] = ()
    note: str = ""
    differs: bool = False


@dataclass(frozen=True)
class Table:
    """groups: heads that span several columns, with their spans; empty for a table with one row of heads."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    groups: Sequence[tuple[str, int]] = field(default=())
    corner: str = "method"


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
    text = percent(value_of(summary, method, input_set, metric))
    return Cell(text, (span(known),) if known else (), f"{note}{MARK if differs else ''}", differs)


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
    return Cell(f"{points(found.difference.value)}{mark}", tuple(below), differs=found.differs)


def distance_table(summary: Summary, sets: Sequence[InputSet], metric: str, caption: str) -> Table | None:
    """Methods by the input sets that have the metric, as a plain number."""
    shown = _with_metric(summary, sets, metric)
    columns = [
        [Cell(number(value_of(summary, method, s.name, metric), decimals=3)) for method in summary]
        for s in shown
    ]
    return _by_sets(list(summary), shown, columns, caption)


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
    return Table(caption, [s.label for s in sets], rows, groups)


def embedding_table(summary: Summary) -> Table | None:
    """Measures of the clean embedding space that a method has."""
    present = [c for c in _EMBEDDING_COLUMNS if any(value_of(summary, m, CLEAN, c[1]) for m in summary)]
    if not present:
        return None
    columns = []
    for _, metric, _, decimals in present:
        stats = [value_of(summary, method, CLEAN, metric) for method in summary]
        texts = [percent(stat) if decimals is None else number(stat, decimals=decimals) for stat in stats]
        columns.append([Cell(text) for text in texts])
    rows = [(method, [column[i] for column in columns]) for i, method in enumerate(summary)]
    groups = [(name, len(list(members))) for name, members in groupby(c[0] for c in present)]
    return Table("The embedding space of clean test images", [c[2] for c in present], rows, groups)


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
            texts = [percent(s) if k == "recall_at_1" else number(s, decimals=2) for k, s in stats.items()]
            rows.append((method, [Cell(text) for text in texts]))
    if not rows:
        return None
    groups = [(name, len(list(members))) for name, members in groupby(c[0] for c in _SCORE_COLUMNS)]
    return Table("The Empirical Robustness Score and its parts", [c[2] for c in _SCORE_COLUMNS], rows, groups)


def input_table(summary: Summary, sets: Sequence[InputSet], channel_std: Sequence[float]) -> Table:
    """Each input set: its goal, its radius in every unit, how it is made, how many queries it has.

    channel_std: the standard deviations, in pixels of [0, 1], that the network divides the channels by;
    with one of each channel a radius in the other units is a range of channels.
    """
    means = [f for f in Threat.model_fields if f not in ("goal", "norm", "epsilon", "units")]
    rows = []
    for s in sets:
        pixel, normalized = _radii(s, channel_std)
        counts = {f"{q['mean']:g}" for m in summary if (q := value_of(summary, m, s.name, "queries"))}
        texts = [
            s.threat.wants.label if s.threat else MISSING,
            NORM_LABELS[s.threat.norm] if s.threat else MISSING,
            _numbers(pixel),
            _numbers([255 * e for e in pixel]),
            _numbers(normalized),
            *(_means(s.threat, name) for name in means),
            " / ".join(sorted(counts)) or MISSING,
        ]
        rows.append((s.name, [Cell(text) for text in texts]))
    radius = ["ε in pixels of [0, 1]", "ε in 8-bit levels", "ε in standard deviations"]
    heads = ["goal", "norm", *radius, *(name.replace("_", " ") for name in means), "queries"]
    return Table("The input sets", heads, rows, corner="input set")


def _radii(s: InputSet, channel_std: Sequence[float]) -> tuple[list[float], list[float]]:
    """In pixels and in standard deviations; an ℓ2 radius is over all channels and has no second form."""
    if s.epsilon is None:
        return [], []
    if s.threat is not None and s.threat.norm == "l2":
        return [s.epsilon], []
    if s.threat is not None and s.threat.units == "normalized":
        return [s.epsilon * std for std in channel_std], [s.epsilon]
    return [s.epsilon], [s.epsilon / std for std in channel_std]


def _means(threat: Threat | None, name: str) -> str:
    """How a set is made, in words; a dash where that plays no part."""
    if threat is None or (name == "targets" and not threat.wants.many):
        return MISSING
    value = getattr(threat, name)
    if value is None:
        return {"step_ratio": "1 / steps", "start_noise": "ε", "branch": "answering"}.get(name, MISSING)
    return f"{value} ε" if name == "step_ratio" else _text(value)


def _numbers(values: Sequence[float]) -> str:
    """One number where the channels agree."""
    return " / ".join(dict.fromkeys(f"{value:.3g}" for value in values)) or MISSING


def settings_tables(settings: Mapping[str, Any]) -> list[Table]:
    """A table a section; the keys of nested mappings are joined by dots."""
    general = {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    sections = {key: value for key, value in settings.items() if isinstance(value, Mapping) and value}
    tables = []
    for name, section in {"general": general, **sections}.items():
        if section:
            rows = [(key, [Cell(_text(value))]) for key, value in _flat(section)]
            tables.append(Table(name, ["value"], rows, corner="key"))
    return tables


def _flat(section: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in section.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return rows


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value) or MISSING
    if isinstance(value, float):
        return f"{value:g}"
    return MISSING if value is None else str(value)
