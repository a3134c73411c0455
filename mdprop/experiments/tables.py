"""A comparison as text: for the terminal, and as CSV."""

from __future__ import annotations

import io
import json
import math
import textwrap
from collections.abc import Mapping
from typing import Any

from mdprop.experiments.comparison import Compared, Line
from mdprop.report.comparisons import HEADLINE, MARK, MISSING, points, short_span, span
from mdprop.report.csvs import csv_text
from mdprop.statistics import Interval

LONGEST_VALUE = 24  # characters of a parameter's value in the terminal
_WIDEST = 10_000


def value_text(parameters: Mapping[str, Any], key: str) -> str:
    """`0.003`, `[clean, multi_target]`, `null`; a dash where an experiment has no such parameter."""
    if key not in parameters:
        return MISSING
    value = parameters[key]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False).replace('"', "")


def difference_text(line: Line, input_set: str) -> str:
    """`+1.6* +0.3 to +2.9`, in points; the mark where the two differ beyond the interval. Or nothing."""
    found = line.against.get(input_set)
    if found is None:
        return ""
    mark = MARK if found.differs else ""
    return f"{points(found.difference.value)}{mark} {span(found.difference, signed=True)}"


def comparison_csv(compared: Compared) -> str:
    """A row an experiment, method and input set: fractions of 1, an empty field where there is no value.

    Columns: experiment, commit, the parameters that differ, method, input_set; recall_at_1 with the ends
    of its interval; against, the first experiment, with difference and ratio, their intervals, and
    whether the two differ beyond the interval.
    """
    keys, first = compared.differing, compared.experiments[0].name
    rows = []
    for line in compared.lines:
        values = [_field(line.experiment.parameters, key) for key in keys]
        for name, recall in line.recall.items():
            where = [line.experiment.name, line.experiment.commit, *values, line.method, name]
            found = line.against.get(name)
            rows.append(
                [
                    *where,
                    *_ends(recall),
                    first if found else None,
                    *_ends(found.difference if found else None),
                    *_ends(found.ratio if found else None),
                    str(found.differs).lower() if found else None,
                ]
            )
    ends = [f"{name}{end}" for name in (HEADLINE, "difference", "ratio") for end in ("", "_low", "_high")]
    head = ["experiment", "commit", *keys, "method", "input_set", *ends[:3], "against", *ends[3:], "differs"]
    return csv_text(head, rows)


def _field(parameters: Mapping[str, Any], key: str) -> str | None:
    return value_text(parameters, key) if key in parameters else None


def _ends(interval: Interval | None) -> tuple[float | None, ...]:
    if interval is None:
        return None, None, None
    return interval.value, interval.low, interval.high if math.isfinite(interval.high) else None


def comparison_table(compared: Compared, width: int = 100) -> str:
    """Recall@1 of clean images and in the worst case, as text of this width; wider where numbers need it."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    rows = [_row(compared, line) for line in compared.lines]
    heads = [
        "method",
        "experiment",
        *compared.differing,
        *(name.replace("_", " ") for name in compared.headline),
    ]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for at, head in enumerate(heads):
        if 2 <= at < 2 + len(compared.differing):  # values of parameters, which may go on in another line
            table.add_column(head.replace(".", ".\n"), justify="right", overflow="fold")
        else:
            cells = (line for row in rows for line in row[at].split("\n"))
            table.add_column(head, no_wrap=True, min_width=max(map(len, (head, *cells))))
    before = None
    for line, row in zip(compared.lines, rows, strict=True):
        if before == line.method:
            row[0] = ""
        elif before:
            table.add_section()
        table.add_row(*row)
        before = line.method
    console = Console(file=io.StringIO(), color_system=None, highlight=False, markup=False, width=_WIDEST)
    with console.capture() as capture:
        console.print(table, width=max(width, console.measure(table).minimum), crop=False)
    text = [line.rstrip() for line in capture.get().rstrip().split("\n")]
    return "\n".join([*text, "", *(textwrap.fill(said, width) for said in legend(compared))])


def _row(compared: Compared, line: Line) -> list[str]:
    values = (value_text(line.experiment.parameters, key) for key in compared.differing)
    shown = [textwrap.shorten(value, LONGEST_VALUE, placeholder=" …") for value in values]
    return [line.method, line.experiment.name, *shown, *(_cell(line, name) for name in compared.headline)]


def _cell(line: Line, input_set: str) -> str:
    """The number and its interval; below, the difference and its own."""
    recall = line.recall.get(input_set)
    if recall is None:
        return MISSING
    return f"{100 * recall.value:.1f}  {short_span(recall)}\n{difference_text(line, input_set)}".rstrip()


def explanation(compared: Compared) -> str:
    """What the numbers of a cell are, from the top."""
    first = compared.experiments[0].name
    return (
        f"Recall@1 in %, with its interval of 95 %. Below: the difference from {first} in points, with its "
        f"own, paired over the queries and seeds that both have; {MARK}: it is more than chance."
    )


def legend(compared: Compared) -> list[str]:
    """What the numbers are, and what could not be compared."""
    lines = [explanation(compared)]
    if not compared.differing:
        lines.append("No parameter differs.")
    return [*lines, *(f"note: {note}." for note in compared.notes)]
