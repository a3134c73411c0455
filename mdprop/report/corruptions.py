"""Recall@1 of corrupted queries, as a table of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from statistics import fmean

from mdprop.attacks.threat import Threat
from mdprop.corruptions import CORRUPTIONS
from mdprop.report.aggregate import Summary
from mdprop.report.comparisons import HEADLINE, MISSING, mean_of, percent, value_of
from mdprop.report.csvs import Row, csv_text
from mdprop.report.page_tables import Cell, Table
from mdprop.report.sets import corrupted_sets
from mdprop.runs import CORRUPTED


def corruption_table(summary: Summary, threats: Mapping[str, Threat]) -> Table | None:
    """Methods by kinds of corruption: the mean over the severities, and in a line below each of them.

    None without corrupted input sets.
    """
    sets = _kinds(summary, threats)
    if not sets:
        return None
    rows = []
    for method in summary:
        cells = [_cell(summary, method, [name for _, name in sets[kind]]) for kind in sets]
        overall = percent(value_of(summary, method, CORRUPTED, HEADLINE))
        mean = Cell(overall, value=mean_of(summary, method, CORRUPTED, HEADLINE))
        rows.append((method, [mean, *cells]))
    families = groupby(CORRUPTIONS[kind].family for kind in sets)
    groups = [("all", 1), *((family, len(list(members))) for family, members in families)]
    heads = ["mean", *(kind.replace("_", " ") for kind in sets)]
    return Table("Recall@1 in %, corrupted queries, clean gallery", heads, rows, groups)


def corruptions_csv(summary: Summary, threats: Mapping[str, Threat]) -> str:
    """Columns method, kind, severity, recall_at_1: each severity, and without one the mean over them."""
    rows: list[Row] = []
    for method in summary:
        for kind, sets in _kinds(summary, threats).items():
            names = [name for _, name in sets]
            rows.append((method, kind, None, _mean(summary, method, names)))
            rows += [(method, kind, s, mean_of(summary, method, name, HEADLINE)) for s, name in sets]
    return csv_text(["method", "kind", "severity", "recall_at_1"], rows)


def _kinds(summary: Summary, threats: Mapping[str, Threat]) -> dict[str, list[tuple[int, str]]]:
    """(severity, input set) of each kind, in the order of `CORRUPTIONS`."""
    sets: dict[str, list[tuple[int, str]]] = {}
    for name, (kind, severity) in corrupted_sets(summary, threats).items():
        sets.setdefault(kind, []).append((severity, name))
    return {kind: sorted(sets[kind]) for kind in CORRUPTIONS if kind in sets}


def _mean(summary: Summary, method: str, names: Sequence[str]) -> float | None:
    """None where one is missing."""
    means = [mean_of(summary, method, name, HEADLINE) for name in names]
    known = [mean for mean in means if mean is not None]
    return fmean(known) if len(known) == len(means) else None


def _cell(summary: Summary, method: str, names: Sequence[str]) -> Cell:
    mean = _mean(summary, method, names)
    if mean is None:
        return Cell(MISSING)
    parts = [percent(value_of(summary, method, name, HEADLINE)).partition(" ")[0] for name in names]
    return Cell(f"{100 * mean:.1f}", (" / ".join(parts),), value=mean)
