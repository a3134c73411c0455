"""Which branch is attacked against which one answers."""

from __future__ import annotations

from collections.abc import Sequence

from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.report.aggregate import Summary, branch_of, method_of
from mdprop.report.comparisons import HEADLINE, percent, span, value_of
from mdprop.report.confidence import UNKNOWN, Intervals
from mdprop.report.page_tables import Cell, Table
from mdprop.report.sets import InputSet

OWN = "the one that answers"


def branch_matrices(
    summary: Summary, sets: Sequence[InputSet], intervals: Intervals = UNKNOWN
) -> list[Table]:
    """For each method that answers through several branches, and each attack that is on several of them.

    Rows are the answering branches, columns the attacked ones.
    """
    tables = []
    for method in dict.fromkeys(map(method_of, summary)):
        rows = [row for row in summary if method_of(row) == method]
        for attack, columns in _attacks(sets).items():
            shown = [s for s in columns if any(value_of(summary, row, s.name, HEADLINE) for row in rows)]
            if len(rows) > 1 and len(shown) > 1:
                cells = [
                    (branch_of(row) or CLEAN, [_cell(summary, intervals, row, s) for s in shown])
                    for row in rows
                ]
                heads = [s.threat.branch or OWN for s in shown if s.threat]
                caption = f"{method}, {attack.wants.label}, {_size(shown[0])}: Recall@1 in %"
                groups = [("attacked branch", len(shown))]
                tables.append(Table(caption, heads, cells, groups, corner="answering branch"))
    return tables


def _attacks(sets: Sequence[InputSet]) -> dict[Threat, list[InputSet]]:
    """Sets whose attacks differ in the branch only, of attacks of their own on one branch or more."""
    found: dict[Threat, list[InputSet]] = {}
    for s in sets:
        if s.threat is not None and s.threat.source is None:
            found.setdefault(s.threat.model_copy(update={"branch": None}), []).append(s)
    return {
        attack: members
        for attack, members in found.items()
        if len({s.threat.branch for s in members if s.threat}) > 1
    }


def _size(s: InputSet) -> str:
    assert s.threat is not None
    return f"ε {s.threat.epsilon:g}{f' ({s.levels})' if s.levels else ''}"


def _cell(summary: Summary, intervals: Intervals, row: str, s: InputSet) -> Cell:
    stat, known = value_of(summary, row, s.name, HEADLINE), intervals.of(row, s.name)
    own = s.threat is not None and s.threat.seen_from(branch_of(row) or CLEAN).branch is None
    below = (span(known),) if known else ()
    return Cell(
        percent(stat), below, "white-box" if own and stat else "", value=stat["mean"] if stat else None
    )
