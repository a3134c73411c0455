"""A comparison as one HTML file, which looks and sorts as the report's page does."""

from __future__ import annotations

from itertools import groupby

from mdprop.corruptions import parse_set
from mdprop.experiments.comparison import Compared, Line
from mdprop.experiments.plots import comparison_plots
from mdprop.experiments.tables import comparison_csv, explanation, value_text
from mdprop.report.comparisons import MARK, MISSING, points, span
from mdprop.report.page_tables import Cell, Table
from mdprop.report.rendering import template


def comparison_page(compared: Compared) -> str:
    """The page as text: the plots, a table of all input sets, what is said about them, and the CSV."""
    return template("compare.html.j2", "mdprop.experiments").render(
        experiments=compared.experiments,
        methods=list(dict.fromkeys(line.method for line in compared.lines)),
        differing=compared.differing,
        notes=compared.notes,
        plots=comparison_plots(compared),
        table=comparison_page_table(compared),
        explanation=explanation(compared),
        csv_text=comparison_csv(compared),
    )


def comparison_page_table(compared: Compared) -> Table:
    """A row an experiment and method: Recall@1 to look at first, what differs in the parameters, the rest.

    Corruptions are left to the CSV, as they would be most of the columns.
    """
    sets = [name for name in compared.sets if not parse_set(name)]
    first = [name for name in sets if name in compared.headline]
    others = [name for name in sets if name not in first]
    named = any(e.commit not in ("", e.name) for e in compared.experiments)
    columns = [
        ("method", ""),
        *(_of_set(name) for name in first),
        *(_head(key) for key in compared.differing),
        *(_of_set(name) for name in others),
        *([("commit", "")] if named else []),
    ]
    rows = []
    for line in compared.lines:
        cells = [Cell(line.method), *(_recall_cell(line, name) for name in first)]
        cells += [_parameter_cell(line, key) for key in compared.differing]
        cells += [_recall_cell(line, name) for name in others]
        cells += [Cell(line.experiment.commit or MISSING)] if named else []
        rows.append((line.experiment.name, cells))
    groups = [(name, len(list(members))) for name, members in groupby(group for group, _ in columns)]
    heads = [head for _, head in columns]
    return Table("Recall@1 by experiment", heads, rows, groups, corner="experiment")


def _of_set(name: str) -> tuple[str, str]:
    return "Recall@1, %", name.replace("_", " ")


def _head(key: str) -> tuple[str, str]:
    """`attack.targets` below the head of its section; `seeds` has none."""
    section, _, name = key.rpartition(".")
    return (section, name) if section else (name, "")


def _parameter_cell(line: Line, key: str) -> Cell:
    value, text = line.experiment.parameters.get(key), value_text(line.experiment.parameters, key)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return Cell(text, value=float(value))
    return Cell(text)


def _recall_cell(line: Line, input_set: str) -> Cell:
    """In percent, with its interval, and the difference from the first experiment."""
    recall, found = line.recall.get(input_set), line.against.get(input_set)
    if recall is None:
        return Cell(MISSING)
    note = ""
    if found:
        own, mark = span(found.difference, signed=True), MARK if found.differs else ""
        note = f"{points(found.difference.value)}{mark} ({own})"
    differs = found is not None and found.differs
    return Cell(f"{100 * recall.value:.1f}", (span(recall),), note, differs, recall.value)
