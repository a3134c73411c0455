"""Which classes are hard: how many of their queries each row finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from mdprop.branches import CLEAN
from mdprop.report.comparisons import MISSING
from mdprop.report.csvs import csv_text
from mdprop.report.intervals import Results
from mdprop.report.page_tables import Cell, Table
from mdprop.runs import WORST_CASE

SHOWN = 10

Counts = Mapping[tuple[str, str], Mapping[int, tuple[int, int]]]
"""(row, input set) -> label -> (hits, queries), over all seeds."""


def count_classes(results: Results, rows: Sequence[str]) -> Counts:
    """Of clean images and of the worst case, of rows that have them."""
    found: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
    for row in rows:
        for name in (WORST_CASE, CLEAN):
            seeds = results.get(row, {}).get(name, {}).values()
            if seeds:
                labels = np.concatenate([hits.labels for hits in seeds])
                hits = np.concatenate([hits.hits for hits in seeds])
                classes, place = np.unique(labels, return_inverse=True)
                right = np.bincount(place, hits).astype(int).tolist()
                both = zip(right, np.bincount(place).tolist(), strict=True)
                found[row, name] = dict(zip(classes.tolist(), both, strict=True))
    return found


def hardest(counts: Counts, names: Mapping[int, str]) -> Table | None:
    """The SHOWN classes of which the rows find least in the worst case, or without one of clean images.

    By the mean share over the rows, then the share of clean images. None where there are no hits at all.
    """
    sets = [name for name in (WORST_CASE, CLEAN) if any(of == name for _, of in counts)]
    if not sets:
        return None
    rows = list(dict.fromkeys(row for row, _ in counts))
    labels = {label for (_, name), of in counts.items() if name == sets[0] for label in of}
    order = sorted(labels, key=lambda label: (*(_mean(counts, name, label) for name in sets), label))
    columns = [(name, row) for name in sets for row in rows]
    table_rows = [
        (
            names.get(label, str(label)),
            [_cell(counts.get((row, name), {}).get(label)) for name, row in columns],
        )
        for label in order[:SHOWN]
    ]
    groups = [(name.replace("_", " "), len(rows)) for name in sets]
    caption = "The classes that are found least: queries that are right, of all of the class"
    return Table(caption, [row for _, row in columns], table_rows, groups, corner="class")


def _mean(counts: Counts, name: str, label: int) -> float:
    shares = [of[label][0] / of[label][1] for (_, own), of in counts.items() if own == name and label in of]
    return fmean(shares) if shares else 1.0


def _cell(found: tuple[int, int] | None) -> Cell:
    if found is None:
        return Cell(MISSING)
    return Cell(f"{found[0]} of {found[1]}", value=found[0] / found[1])


def classes_csv(counts: Counts, names: Mapping[int, str]) -> str:
    """Columns method, input_set, label, class, hits, queries: every class, over all seeds."""
    rows = [
        (row, name, label, names.get(label, ""), *found)
        for (row, name), of in counts.items()
        for label, found in of.items()
    ]
    return csv_text(["method", "input_set", "label", "class", "hits", "queries"], rows)
