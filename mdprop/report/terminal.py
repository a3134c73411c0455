"""The paper's table as plain text."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from mdprop.attacks.threat import Threat
from mdprop.report.aggregate import Summary, branch_of
from mdprop.report.comparisons import (
    HEADLINE,
    MARK,
    STANDARD,
    comparison,
    interval_note,
    number,
    percent,
    short_span,
    spread_note,
    value_of,
)
from mdprop.report.confidence import UNKNOWN, Intervals
from mdprop.report.sets import UNIT_LABELS, InputSet, input_sets, shown_norms, shown_units
from mdprop.runs import CORRUPTED, WORST_CASE


def terminal_table(
    summary: Summary,
    threats: Mapping[str, Threat],
    width: int = 100,
    intervals: Intervals = UNKNOWN,
    evaluated: str = "test",
) -> str:
    """Recall@1 in as many blocks of columns as `width` characters ask for; wider where one column does.

    Where there are intervals, they stand in place of the spread over seeds.
    evaluated: "validation" for numbers of validation classes, which is said below.
    """
    sets = input_sets(summary, threats)
    columns = [_Column.of(summary, s, intervals) for s in sets]
    first = max(len(name) for name in ("method", *summary))
    width = max(width, first + 1 + max((column.width for column in columns), default=0))
    blocks = [_block(list(summary), block, width) for block in _fit(columns, width - first)]
    lines = _legend(summary, sets, intervals)
    if evaluated == "validation":
        lines.append("These are validation classes (dataset.evaluate): no number is one of test classes.")
    legend = "\n".join(textwrap.fill(line, width) for line in lines)
    return "\n\n".join([*blocks, legend])


@dataclass(frozen=True)
class _Column:
    """group, label: the lines of its head."""

    group: list[str]
    label: list[str]
    cells: list[str]

    @classmethod
    def of(cls, summary: Summary, input_set: InputSet, intervals: Intervals) -> _Column:
        cells = [_cell(summary, method, input_set.name, intervals) for method in summary]
        return cls(_narrow(input_set.group), input_set.label.split(", "), cells)

    @property
    def width(self) -> int:
        lines = (line for text in self.cells for line in text.split("\n"))
        return max(len(line) for line in (*self.group, *self.label, *lines))


def _cell(summary: Summary, method: str, input_set: str, intervals: Intervals) -> str:
    """The number, its interval where the table has intervals, and the comparison, line by line."""
    stat = value_of(summary, method, input_set, HEADLINE)
    against = comparison(summary, method, input_set)
    if not intervals.recall:
        return f"{percent(stat, between='')}\n{against}".rstrip()
    known = intervals.of(method, input_set)
    mark = MARK if against and intervals.differs(method, input_set) else ""
    value = number(stat, decimals=1, scale=100, spread=False)
    return f"{value}\n{short_span(known) if known else ''}\n{against}{mark}".rstrip()


def _narrow(text: str) -> list[str]:
    """In lines that end at blanks and after hyphens."""
    return re.split(r"(?<=-)| ", text)


def _fit(columns: Sequence[_Column], room: int) -> list[list[_Column]]:
    """Columns in blocks, each as wide as `room`, a column and one blank before it at the least."""
    blocks: list[list[_Column]] = []
    left = 0
    for column in columns:
        if not blocks or column.width + 1 > left:
            blocks.append([])
            left = room
        blocks[-1].append(column)
        left -= column.width + 1
    return blocks


def _block(methods: Sequence[str], columns: Sequence[_Column], width: int) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0, leading=1)
    heads = _heads(columns)
    table.add_column("\n" * heads[0].count("\n") + "method", no_wrap=True)
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row, method in enumerate(methods):
        table.add_row(method, *(column.cells[row] for column in columns))
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().split("\n"))


def _heads(columns: Sequence[_Column]) -> list[str]:
    """The heads of a block, of one height: groups on the same lines, and labels."""
    groups = zip(*zip_longest(*(column.group for column in columns), fillvalue=""), strict=True)
    labels = zip(*zip_longest(*(column.label for column in columns), fillvalue=""), strict=True)
    return ["\n".join((*group, *label)) for group, label in zip(groups, labels, strict=True)]


def _legend(summary: Summary, sets: Sequence[InputSet], intervals: Intervals) -> list[str]:
    known = bool(intervals.recall)
    lines = [" ".join([f"Recall@1 in %, {spread_note(summary, spread=not known)}.", *_radii(sets)])]
    if any(s.name == WORST_CASE for s in sets):
        lines.append("Worst case: right under every attack; the number to quote.")
    if any(s.name == CORRUPTED for s in sets):
        lines.append("Corruptions: the mean over kinds and severities; no attack.")
    if any(branch_of(row) for row in summary):
        lines.append("A row method@branch answers, and is attacked, through that batch-norm branch.")
    if known:
        note = interval_note(summary)
        lines.append(f"Second line: interval of 95 %, {note}. Each stands alone.")
    if STANDARD not in summary:
        lines.append(f"No comparison: {STANDARD} is not among the methods.")
    elif len(summary) > 1:
        line = "Third" if known else "Second"
        mark = f"; {MARK}: they differ beyond the interval of 95 % of their difference" if known else ""
        lines.append(
            f"{line} line, against {STANDARD}: difference in points (clean), ratio (attacked){mark}."
        )
    return lines


def _radii(sets: Sequence[InputSet]) -> list[str]:
    """What the radii in the heads mean."""
    units, norms = shown_units(sets), shown_norms(sets)
    signs = " and ".join("ε" if norm == "linf" else "ℓ2" for norm in norms)
    if len(units) == 1:
        return [f"{signs} in {UNIT_LABELS[units[0]]}."]
    return [f"{signs}, {name}: in {UNIT_LABELS[name]}." for name in units]
