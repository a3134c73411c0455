"""What a study has stored, as the rows of its tables: hits of queries, and other metrics, by seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdprop.branches import CLEAN
from mdprop.errors import ParameterError
from mdprop.files import read_sealed_json
from mdprop.report.intervals import Hits, read_hits
from mdprop.runs import Run
from mdprop.study.plan import Study, Unit, read_study, units
from mdprop.study.stored import DESCRIPTION, describe, stored_run


@dataclass(frozen=True)
class Row:
    """The seeds of one method at one point of a study, answering through one branch."""

    study: str
    runs: tuple[Run, ...]
    row: str
    """As in `read_hits`: the method, or <method>@<branch>."""

    def hits(self, columns: Iterable[str]) -> dict[str, dict[int, Hits]]:
        """Column (see `Table`) -> seed -> hits, where there are any."""
        known = read_hits(self.runs).get(self.row, {})
        found: dict[str, dict[int, Hits]] = {}
        for column in columns:
            sets = [known.get(name, {}) for name in column.split(" & ")]
            seeds = [seed for seed in sets[0] if all(seed in by_seed for by_seed in sets)]
            if seeds:
                found[column] = {seed: _right_in_all([by_seed[seed] for by_seed in sets]) for seed in seeds}
        return found

    def metric(self, input_set: str, name: str) -> dict[int, float]:
        """seed -> value of a metric, where it has one."""
        branch = self.row.partition("@")[2]
        key = input_set if not branch else f"{input_set}@{branch}"
        values = {}
        for run in self.runs:
            value = read_sealed_json(run.metrics, "run `mdprop study run`").get(key, {}).get(name)
            if value is not None:
                values[run.seed] = float(value)
        return values

    def descriptions(self) -> list[dict[str, Any]]:
        return [describe(run) for run in self.runs]


def _right_in_all(sets: Sequence[Hits]) -> Hits:
    """Of the queries that are in all of them."""
    ids, labels, hits = sets[0].ids, sets[0].labels, sets[0].hits
    for other in sets[1:]:
        ids, ours, theirs = np.intersect1d(ids, other.ids, assume_unique=True, return_indices=True)
        labels, hits = labels[ours], hits[ours] & other.hits[theirs]
    return Hits(ids, labels, hits)


def find_row(study: Study, folder: Path, text: str) -> Row:
    """The stored runs of `<group>/<method>`, `<group>/<point>/<method>`, with @<branch> behind it.

    Seeds that have no results are left out. Raises `ParameterError` where the study has no such runs.
    """
    place, _, branch = text.partition("@")
    group, _, method = place.rpartition("/")
    wanted = [unit for unit in units(study) if str(unit.place) == group and unit.method == method]
    if not wanted:
        raise ParameterError(f"{folder}/study.yaml: '{text}' is no <group>/<method> of its runs")
    return Row(
        folder.name, _stored(folder, wanted), method if branch in ("", CLEAN) else f"{method}@{branch}"
    )


def _stored(folder: Path, wanted: Iterable[Unit]) -> tuple[Run, ...]:
    runs = (stored_run(folder, unit) for unit in wanted)
    return tuple(run for run in runs if (run.folder / DESCRIPTION).exists())


def rows_of(study: Study, folder: Path, rows: Mapping[str, str]) -> dict[str, Row]:
    """The rows of a table by their labels. `*` in a place stands for every point of a group's grid:
    a row for each, whose label has the values of the point in place of `*`. Rows without
    results are left out.
    """
    found: dict[str, Row] = {}
    others: dict[str, Study] = {}
    for label, text in rows.items():
        other, _, here = text.rpartition(":")
        if other:
            there = folder.with_name(other)
            if other not in others:
                others[other] = read_study(there / "study.yaml")
            found |= rows_of(others[other], there, {label: here})
            continue
        group, _, rest = text.partition("/*/")
        if not rest:
            found[label] = find_row(study, folder, text)
            continue
        for unit in units(study):
            if unit.group == group:
                point = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in unit.point)
                found[label.replace("*", point)] = find_row(study, folder, f"{unit.place}/{rest}")
    return {label: row for label, row in found.items() if row.runs}
