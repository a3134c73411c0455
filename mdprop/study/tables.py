"""The tables of a study as Markdown, from its stored results alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mdprop.branches import CLEAN
from mdprop.report.comparisons import MARK, MISSING, span
from mdprop.report.confidence import Comparison
from mdprop.report.intervals import comparisons, recall_intervals
from mdprop.statistics import Interval, mean_of_seeds
from mdprop.study.plan import Study, Table
from mdprop.study.rows import Row, rows_of


class Cell(NamedTuple):
    """A value with its interval of 95 %; how it differs from the reference, empty where there is none."""

    value: str
    compared: str = ""


def table(study: Study, folder: Path, name: str) -> str:
    """One of the study's tables, and a line that says where its numbers are from.

    A cell has the value with its interval of 95 %, and below it how the row differs from the table's
    reference, with the interval of that difference or ratio; `*` marks one that leaves out no difference.
    Where rows have different seeds, the last column counts them.
    """
    wanted = study.tables[name]
    rows = rows_of(study, folder, wanted.rows)
    counted = _differ_in_seeds(list(rows.values()))
    titles = [*wanted.columns, *(["seeds"] if counted else [])]
    lines = ["| | " + " | ".join(titles) + " |", "| --- |" + " --- |" * len(titles)]
    for label, row in _cells(wanted, rows).items():
        shown = ["<br>".join(filter(None, cell)) for cell in row.values()]
        shown += [str(len(rows[label].runs))] if counted else []
        lines.append(f"| {label} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n\n" + origin(list(rows.values()), folder) + "\n"


def cells(study: Study, folder: Path, name: str) -> dict[str, dict[str, Cell]]:
    """The cells of one of the study's tables: row -> column -> cell."""
    wanted = study.tables[name]
    return _cells(wanted, rows_of(study, folder, wanted.rows))


def _cells(wanted: Table, rows: Mapping[str, Row]) -> dict[str, dict[str, Cell]]:
    results = {label: row.hits(wanted.columns.values()) for label, row in rows.items()}
    intervals = recall_intervals(results)
    references = {label: wanted.reference(label) for label in rows}
    against = {name: comparisons(results, name) for name in {*references.values()} & results.keys() if name}
    found: dict[str, dict[str, Cell]] = {}
    for label, row in rows.items():
        reference = references[label] or ""
        found[label] = {}
        for title, column in wanted.columns.items():
            input_set, _, metric = column.partition(".")
            if metric:
                cell = _metric_cell(row, rows.get(reference), input_set, metric)
            else:
                compared = against.get(reference, {}).get(label, {}).get(column)
                cell = _recall_cell(intervals[label].get(column), compared, wanted, column)
            found[label][title] = cell
    return found


def _recall_cell(value: Interval | None, compared: Comparison | None, table: Table, input_set: str) -> Cell:
    if value is None:
        return Cell(MISSING)
    text = f"{100 * value.value:.1f} ({span(value)})"
    if compared is None:
        return Cell(text)
    ratio = compared.ratio if input_set != CLEAN and table.attacked == "ratio" else None
    if ratio is not None:
        mark = MARK if ratio.excludes(1) else ""
        return Cell(text, f"×{ratio.value:.2f}{mark} ({span(ratio, decimals=2, scale=1)})")
    difference = compared.difference
    mark = MARK if difference.excludes(0) else ""
    return Cell(text, f"{100 * difference.value:+.1f}{mark} ({span(difference, signed=True)})")


def _metric_cell(row: Row, reference: Row | None, input_set: str, metric: str) -> Cell:
    values = row.metric(input_set, metric)
    if not values:
        return Cell(MISSING)
    mean = sum(values.values()) / len(values)
    over_seeds = mean_of_seeds(list(values.values()))
    text = f"{mean:.3f}" + (f" ({span(over_seeds, decimals=3, scale=1)})" if over_seeds else "")
    if reference is None:
        return Cell(text)
    theirs = reference.metric(input_set, metric)
    both = sorted(values.keys() & theirs.keys())
    difference = mean_of_seeds([values[seed] - theirs[seed] for seed in both]) if both else None
    if difference is None:
        return Cell(text)
    mark = MARK if difference.excludes(0) else ""
    compared = f"{difference.value:+.3f}{mark} ({span(difference, decimals=3, scale=1, signed=True)})"
    return Cell(text, compared)


def origin(rows: Sequence[Row], folder: Path) -> str:
    """Where numbers are from: seeds, command, commits, hardware, versions.

    folder: that of the study, whose command is named where there are no numbers yet.
    """
    known = [description for row in rows for description in row.descriptions()]
    if not known:
        return f"No results yet: `mdprop study run {folder.name}`."
    seeds = sorted({run.seed for row in rows for run in row.runs})
    named = ", ".join(map(str, seeds))
    commands = ", ".join(f"`mdprop study run {name}`" for name in dict.fromkeys(row.study for row in rows))

    def of(key: str) -> str:
        return ", ".join(sorted({description["provenance"][key] for description in known}))

    processors = ", ".join(sorted({description["processor"] for description in known}))
    differing = ", not all in every row" if _differ_in_seeds(rows) else ""
    return (
        f"Seed{'s' if len(seeds) > 1 else ''} {named}{differing}; {commands}; "
        f"commit {of('commit')}; one thread of {processors}, torch {of('torch')}."
    )


def _differ_in_seeds(rows: Sequence[Row]) -> bool:
    return len({tuple(run.seed for run in row.runs) for row in rows}) > 1
