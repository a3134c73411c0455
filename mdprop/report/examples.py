"""Queries with their neighbours, before and after an attack, for the page: which are shown, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mdprop.branches import CLEAN
from mdprop.data.stores.examples import Examples, Found, Neighbour, Query, read_examples
from mdprop.report.comparisons import STANDARD
from mdprop.report.csvs import csv_text
from mdprop.runs import Run

RIVAL = "mdprop"
_BEYOND = 10**9  # the rank of a query that finds nothing within the depth searched


@dataclass(frozen=True)
class Picture:
    """src: a data URI. alt, caption: in words. verdict: "hit", "miss", or "" for what is no answer."""

    src: str
    alt: str
    caption: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Line:
    """What one row of the table finds for a query: the images asked with, and the neighbours."""

    row: str
    state: str
    asked: tuple[Picture, ...]
    neighbours: tuple[Picture, ...]


@dataclass(frozen=True)
class Case:
    """A query, why it is shown, and a line a row before and after the attack."""

    title: str
    rule: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Grid:
    """cases: chosen by rule; notes: rules that no query meets, in words."""

    drawn: int
    input_set: str
    amplified: int
    rows: tuple[str, ...]
    cases: tuple[Case, ...]
    notes: tuple[str, ...]
    csv: str


def read_all(runs: Sequence[Run]) -> dict[str, Examples]:
    """The examples of the first run of each method, by the row of the table that they are of."""
    found: dict[str, Examples] = {}
    seen: set[str] = set()
    for run in runs:
        if run.method not in seen:
            seen.add(run.method)
            examples = read_examples(run.examples)
            at = "" if examples.branch == CLEAN else f"@{examples.branch}"
            found[f"{run.method}{at}"] = examples
    return found


def choose(examples: Mapping[str, Examples]) -> Grid | None:
    """The queries to show, of one or two rows; None where no run has an attack to show.

    Two rows: `standard` (or else the first) and `mdprop` (or else the last).
    """
    shown = {row: found for row, found in examples.items() if found.input_set}
    if not shown:
        return None
    first = next((row for row in shown if row.startswith(STANDARD)), next(iter(shown)))
    others = [row for row in shown if row != first and shown[row].input_set == shown[first].input_set]
    rival = next((row for row in others if row.startswith(RIVAL)), others[-1] if others else first)
    rows = tuple(dict.fromkeys((first, rival)))
    queries = {row: {query.id: query for query in shown[row].queries if query.attack} for row in rows}
    common = [i for i in queries[first] if all(i in queries[row] for row in rows)]
    cases, notes, taken = [], [], set[int]()
    for title, rule, able in _rules(first, rival, queries, common):
        left = [i for i in able if i not in taken]
        if left:
            taken.add(left[0])
            lines = [line for row in rows for line in _lines(row, shown[row], queries[row][left[0]])]
            cases.append(Case(title, rule, tuple(lines)))
        else:
            notes.append(f"{title}: none. {rule}.")
    kept = {row: [queries[row][i] for i in common] for row in rows}
    return Grid(
        drawn=len(common),
        input_set=str(shown[first].input_set),
        amplified=shown[first].amplified,
        rows=rows,
        cases=tuple(cases),
        notes=tuple(notes),
        csv=_csv(kept),
    )


def _rules(
    first: str, rival: str, queries: Mapping[str, Mapping[int, Query]], common: Sequence[int]
) -> list[tuple[str, str, list[int]]]:
    """(title, rule, the queries that meet it, the one to show in front)."""

    def rank(row: str, query: int) -> int:
        attack = queries[row][query].attack
        return (attack.found.rank if attack else 0) or _BEYOND

    right = [i for i in common if all(of[i].clean.rank == 1 for of in queries.values())]
    by_rank = sorted(right, key=lambda i: (rank(first, i), i))
    middle = by_rank[(len(by_rank) - 1) // 2 :] if by_rank else []
    worst = sorted(right, key=lambda i: (-rank(rival, i), i))
    found_when_clean = "Found on clean images by " + " and ".join(dict.fromkeys((first, rival)))
    rules = [
        ("Typical", f"{found_when_clean}; the median rank under attack, of {first}", middle),
        ("Worst", f"{found_when_clean}; the worst rank under attack, of {rival}", worst),
    ]
    if first != rival:
        for title, loser, winner in (
            (f"Rescued by {rival}", first, rival),
            (f"Lost by {rival}", rival, first),
        ):
            able = [i for i in right if rank(loser, i) > 1 and rank(winner, i) == 1]
            able.sort(key=lambda i: (-rank(loser, i), i))
            rule = f"{found_when_clean}; under attack by {winner} only: {len(able)} of {len(common)} queries"
            rules.append((title, f"{rule}, the one with the worst rank of {loser}" if able else rule, able))
    return rules


def _lines(row: str, examples: Examples, query: Query) -> list[Line]:
    name = examples.classes[query.label]
    attack = query.attack
    assert attack is not None
    clean = Picture(_uri(examples, examples.pictures[query.id]), f"query, class {name}", f"query: {name}")
    attacked = Picture(_uri(examples, attack.picture), f"attacked query, class {name}", f"attacked: {name}")
    change = Picture(
        _uri(examples, attack.perturbation),
        f"its perturbation, amplified {examples.amplified} times; grey is no change",
        f"change ×{examples.amplified}",
    )
    return [
        Line(row, f"clean, {_said(query.clean)}", (clean,), _neighbours(examples, query, query.clean)),
        Line(
            row,
            f"attacked, {_said(attack.found)}",
            (attacked, change),
            _neighbours(examples, query, attack.found),
        ),
    ]


def _said(found: Found) -> str:
    return f"first hit at rank {found.rank}" if found.rank else "no hit"


def _neighbours(examples: Examples, query: Query, found: Found) -> tuple[Picture, ...]:
    return tuple(_neighbour(examples, query, place, n) for place, n in enumerate(found.neighbours, 1))


def _neighbour(examples: Examples, query: Query, place: int, neighbour: Neighbour) -> Picture:
    name, hit = examples.classes[neighbour.label], neighbour.label == query.label
    alt = f"neighbour {place}, {'hit' if hit else 'miss'}: class {name}"
    source = _uri(examples, examples.pictures[neighbour.id])
    return Picture(source, alt, f"{'✓' if hit else '✗'} {name}", "hit" if hit else "miss")


def _uri(examples: Examples, content: str) -> str:
    return f"data:image/{examples.kind};base64,{content}"


def _csv(queries: Mapping[str, Sequence[Query]]) -> str:
    """Every query that was drawn, and what it finds."""
    rows = [
        (row, query.id, query.label, state, found.rank, place, near.id, near.label, near.distance)
        for row, of in queries.items()
        for query in of
        for state, found in (("clean", query.clean), ("attacked", query.attack and query.attack.found))
        if found
        for place, near in enumerate(found.neighbours, 1)
    ]
    heads = ["row", "query", "label", "state", "rank", "place", "neighbour", "neighbour_label", "distance"]
    return csv_text(heads, rows)
