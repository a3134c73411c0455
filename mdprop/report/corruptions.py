"""Recall@1 of corrupted queries, as a table of the page."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from statistics import fmean

from mdprop.attacks.threat import Threat
from mdprop.corruptions import CORRUPTIONS
from mdprop.report.aggregate import Summary
from mdprop.report.comparisons import HEADLINE, MISSING, mean_of, percent, value_of
from mdprop.report.page_tables import Cell, Table
from mdprop.report.sets import corrupted_sets
from mdprop.runs import CORRUPTED


def corruption_table(summary: Summary, threats: Mapping[str, Threat]) -> Table | None:
    """Methods by kinds of corruption: the mean over the severities, and in a line below each of them.

    None without corrupted input sets.
    """
    sets: dict[str, list[tuple[int, str]]] = {}
    for name, (kind, severity) in corrupted_sets(summary, threats).items():
        sets.setdefault(kind, []).append((severity, name))
    if not sets:
        return None
    kinds = [kind for kind in CORRUPTIONS if kind in sets]
    rows = []
    for method in summary:
        cells = [_cell(summary, method, [name for _, name in sorted(sets[kind])]) for kind in kinds]
        overall = percent(value_of(summary, method, CORRUPTED, HEADLINE))
        mean = Cell(overall, value=mean_of(summary, method, CORRUPTED, HEADLINE))
        rows.append((method, [mean, *cells]))
    families = groupby(CORRUPTIONS[kind].family for kind in kinds)
    groups = [("all", 1), *((family, len(list(members))) for family, members in families)]
    heads = ["mean", *(kind.replace("_", " ") for kind in kinds)]
    return Table("Recall@1 in %, corrupted queries, clean gallery", heads, rows, groups)


def _cell(summary: Summary, method: str, names: list[str]) -> Cell:
    means = [mean_of(summary, method, name, HEADLINE) for name in names]
    known = [mean for mean in means if mean is not None]
    if len(known) < len(means):
        return Cell(MISSING)
    mean = fmean(known)
    return Cell(f"{100 * mean:.1f}", (" / ".join(f"{100 * one:.1f}" for one in known),), value=mean)
