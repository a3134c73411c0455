"""The paper's table: methods by input distributions, against the standard method.

Numbers are fractions of 1 here; texts are in percent.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mdprop.methods import CLEAN, GOALS, Goal, goal_of
from mdprop.report.aggregate import Stat, Summary

STANDARD = "standard"
HEADLINE = "recall_at_1"
MISSING = "–"
GOAL_LABELS: dict[Goal, str] = {
    "single_target": "single-targeted",
    "multi_target": "multi-targeted",
    "untargeted": "untargeted",
    "unadversarial": "unadversarial",
}
UNIT_LABELS = {"pixel": "pixels of [0, 1]", "normalized": "standard deviations of a channel"}
_NARROW = {
    "single_target": ["single-", "targeted"],
    "multi_target": ["multi-", "targeted"],
    "untargeted": ["un-", "targeted"],
    "unadversarial": ["unadver-", "sarial"],
}


@dataclass(frozen=True)
class InputSet:
    """One input distribution of the table; `goal` is None for clean, `epsilon` None where unknown."""

    name: str
    goal: Goal | None
    epsilon: float | None

    @property
    def group(self) -> str:
        return GOAL_LABELS[self.goal] if self.goal else self.name.replace("_", " ")

    @property
    def label(self) -> str:
        """What tells it from the others of its group."""
        if self.goal is None:
            return ""
        if self.epsilon is not None:
            return f"ε {self.epsilon:g}"
        return self.name.removeprefix(self.goal).strip("_").replace("_", " ")

    @property
    def title(self) -> str:
        return f"{self.group} {self.label}".strip()


def input_sets(summary: Summary, epsilons: Mapping[str, float]) -> list[InputSet]:
    """The input sets of the summary: clean, then goal by goal with growing epsilon.

    epsilons: the radius of each adversarial set by name; those not named have none.
    """
    names = dict.fromkeys(name for sets in summary.values() for name in sets)
    found = [InputSet(n, goal_of(n), 0.0 if n == CLEAN else epsilons.get(n)) for n in names]

    def place(s: InputSet) -> tuple[int, float]:
        rank = GOALS.index(s.goal) + 1 if s.goal else 0 if s.name == CLEAN else len(GOALS) + 1
        return rank, math.inf if s.epsilon is None else s.epsilon

    return sorted(found, key=place)


def value_of(summary: Summary, method: str, input_set: str, metric: str) -> Stat | None:
    """The metric, or None where it is missing or undefined."""
    stat = summary.get(method, {}).get(input_set, {}).get(metric)
    return stat if stat and stat["mean"] is not None else None


def mean_of(summary: Summary, method: str, input_set: str, metric: str) -> float | None:
    stat = value_of(summary, method, input_set, metric)
    return stat["mean"] if stat else None


def compare(summary: Summary, method: str, input_set: str, metric: str) -> tuple[float | None, float | None]:
    """Difference from and ratio to the standard method, both of means over seeds.

    None where either is missing; the ratio also where the standard method has 0.
    """
    ours = mean_of(summary, method, input_set, metric)
    theirs = mean_of(summary, STANDARD, input_set, metric)
    if ours is None or theirs is None:
        return None, None
    return ours - theirs, ours / theirs if theirs else None


def percent(stat: Stat | None, between: str = " ") -> str:
    """`78.9 ± 0.4`, in percent; the spread only over two seeds or more."""
    if stat is None or stat["mean"] is None:
        return MISSING
    text = f"{100 * stat['mean']:.1f}"
    return text if stat["n"] < 2 else f"{text}{between}±{between}{100 * (stat['std'] or 0.0):.1f}"


def comparison(
    summary: Summary, method: str, input_set: InputSet, metric: str = HEADLINE, *, times: str = "x"
) -> str:
    """`+1.6` points for clean, the ratio `x2.12` for adversarial sets; points where that is undefined."""
    difference, ratio = compare(summary, method, input_set.name, metric)
    if method == STANDARD or difference is None:
        return ""
    if input_set.name == CLEAN or ratio is None:
        return f"{round(100 * difference, 1) + 0.0:+.1f}"  # + 0.0: no minus zero
    return f"{times}{ratio:.2f}"


def spread_note(summary: Summary, metric: str = HEADLINE) -> str:
    """What the numbers of a table are taken over."""
    found = [metrics for sets in summary.values() for metrics in sets.values() if metric in metrics]
    counts = {metrics[metric]["n"] for metrics in found}
    if max(counts, default=1) < 2:
        return "one seed"
    seeds = f"{max(counts)} seeds" if len(counts) == 1 else f"{min(counts)} to {max(counts)} seeds"
    return f"mean ± sample standard deviation over {seeds}"


def terminal_table(summary: Summary, epsilons: Mapping[str, float], units: str = "", width: int = 100) -> str:
    """Recall@1 as plain text, in as many blocks of columns as `width` characters ask for.

    units: of epsilon, `pixel` or `normalized`; named below the table.
    """
    columns = [_Column.of(summary, s) for s in input_sets(summary, epsilons)]
    names = ["method", *summary]
    blocks = _fit(columns, width - max(len(name) for name in names))
    legend = "\n".join(textwrap.fill(line, width) for line in _legend(summary, units))
    return "\n\n".join([*(_block(list(summary), block, width) for block in blocks), legend])


@dataclass(frozen=True)
class _Column:
    head: list[str]
    cells: list[str]

    @classmethod
    def of(cls, summary: Summary, input_set: InputSet) -> _Column:
        name = _NARROW[input_set.goal] if input_set.goal else [input_set.group, ""]
        cells = []
        for method in summary:
            value = percent(value_of(summary, method, input_set.name, HEADLINE), between="")
            cells.append(f"{value}\n{comparison(summary, method, input_set)}".strip())
        return cls([*name, input_set.label], cells)

    @property
    def width(self) -> int:
        return max(len(line) for text in (*self.head, *self.cells) for line in text.split("\n"))


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
    table.add_column("\n\nmethod", no_wrap=True)
    for column in columns:
        table.add_column("\n".join(column.head), justify="right", no_wrap=True)
    for row, method in enumerate(methods):
        table.add_row(method, *(column.cells[row] for column in columns))
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().split("\n"))


def _legend(summary: Summary, units: str) -> list[str]:
    lines = [f"Recall@1 in %, {spread_note(summary)}."]
    if units:
        lines[0] += f" ε in {UNIT_LABELS[units]}."
    if STANDARD not in summary:
        lines.append(f"No comparison: {STANDARD} is not among the methods.")
    elif len(summary) > 1:
        lines.append(f"Second line, against {STANDARD}: difference in points (clean), ratio (attacked).")
    return lines
