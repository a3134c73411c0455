"""How far each Recall@1 may be trusted, and which differences between rows are more than chance.

Over seeds where there are several that differ, else over queries: see `mdprop.statistics`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdprop.branches import CLEAN
from mdprop.data.stores.queries import read_queries
from mdprop.report.comparisons import STANDARD
from mdprop.report.confidence import Comparison, Intervals
from mdprop.runs import Run
from mdprop.statistics import (
    Interval,
    difference_of_queries,
    difference_of_seeds,
    mean_of_seeds,
    ratio_of_queries,
    ratio_of_seeds,
    share_of_queries,
)

REFERENCES = (STANDARD, "at")
"""The rows that others are compared with."""

_COLUMNS = ["set", "branch", "id", "label", "hit"]


@dataclass(frozen=True)
class Hits:
    """Which queries of one input set found their class first: ids, labels [Q] int, hits [Q] bool."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    hits: NDArray[np.bool_]


Results = Mapping[str, Mapping[str, Mapping[int, Hits]]]  # row -> input set -> seed


def read_intervals(runs: Iterable[Run], references: Sequence[str] = REFERENCES) -> Intervals:
    """The intervals of every Recall@1 in the queries.parquet of these runs, and of all comparisons.

    runs: the seeds of a method side by side. Rows are called as in `aggregate`: a method, or
    <method>@<branch>. References that have no row are left out.

    Raises `ResultError` where a file is missing or damaged, or lacks a column.
    """
    return intervals_of(read_hits(runs), references)


def intervals_of(results: Results, references: Sequence[str] = REFERENCES) -> Intervals:
    """The intervals of `read_intervals`, of hits that were read."""
    against = {name: comparisons(results, name) for name in references if name in results}
    return Intervals(recall_intervals(results), against)


def read_hits(runs: Iterable[Run]) -> Results:
    """The hits in the queries.parquet of these runs, one file at a time. Raises as `read_intervals`."""
    results: dict[str, dict[str, dict[int, Hits]]] = {}
    for run in runs:
        for branch, input_set, hits in _read(run):
            row = run.method if branch == CLEAN else f"{run.method}@{branch}"
            results.setdefault(row, {}).setdefault(input_set, {})[run.seed] = hits
    return results


def _read(run: Run) -> Iterator[tuple[str, str, Hits]]:
    """(branch, input set, hits), in the order of the file; sets without hits are left out."""
    table = read_queries(run.queries, _COLUMNS)
    table = table.filter(table["hit"].is_valid()).combine_chunks()
    sets, branches = (table[name].combine_chunks().dictionary_encode() for name in ("set", "branch"))
    pairs = sets.indices.to_numpy() * len(branches.dictionary) + branches.indices.to_numpy()
    ids, labels = table["id"].to_numpy(), table["label"].to_numpy()
    hits = table["hit"].to_numpy()
    codes, first = np.unique(pairs, return_index=True)
    for code in codes[np.argsort(first)]:
        input_set, branch = divmod(int(code), len(branches.dictionary))
        rows = pairs == code
        name = sets.dictionary[input_set].as_py()
        yield branches.dictionary[branch].as_py(), name, Hits(ids[rows], labels[rows], hits[rows])


def recall_intervals(results: Results) -> dict[str, dict[str, Interval]]:
    """row -> input set -> the mean over seeds of Recall@1."""
    return {
        row: {name: _recall(list(by_seed.values())) for name, by_seed in sets.items()}
        for row, sets in results.items()
    }


def comparisons(results: Results, reference: str) -> dict[str, dict[str, Comparison]]:
    """row -> input set -> the row against the reference, on the seeds and queries that both have.

    Where they have none in common, there is no entry.
    """
    theirs = results[reference]
    found: dict[str, dict[str, Comparison]] = {}
    for row, sets in results.items():
        if row == reference:
            continue
        found[row] = {}
        for name, by_seed in sets.items():
            pairs = _pairs(by_seed, theirs.get(name, {}))
            if pairs:
                found[row][name] = _compare(pairs, with_ratio=name != CLEAN)
    return found


def _recall(seeds: Sequence[Hits]) -> Interval:
    over_seeds = mean_of_seeds([seed.hits.mean() for seed in seeds], 0.0, 1.0)
    if over_seeds:
        return over_seeds
    hits, labels = (np.concatenate(parts) for parts in zip(*((s.hits, s.labels) for s in seeds), strict=True))
    return share_of_queries(hits, labels)


@dataclass(frozen=True)
class _Pair:
    """One seed of two rows, on the same queries: [Q] each."""

    ours: NDArray[np.bool_]
    theirs: NDArray[np.bool_]
    labels: NDArray[np.int64]


def _pairs(ours: Mapping[int, Hits], theirs: Mapping[int, Hits]) -> list[_Pair]:
    """Of each seed that both have, the queries that both have."""
    found = []
    for seed in ours:
        if seed in theirs:
            a, b = ours[seed], theirs[seed]
            _, rows, others = np.intersect1d(a.ids, b.ids, assume_unique=True, return_indices=True)
            if len(rows):
                found.append(_Pair(a.hits[rows], b.hits[others], a.labels[rows]))
    return found


def _compare(pairs: Sequence[_Pair], *, with_ratio: bool) -> Comparison:
    means = [pair.ours.mean() for pair in pairs], [pair.theirs.mean() for pair in pairs]
    ours = np.concatenate([pair.ours for pair in pairs])
    theirs = np.concatenate([pair.theirs for pair in pairs])
    labels = np.concatenate([pair.labels for pair in pairs])
    difference = difference_of_seeds(*means) or difference_of_queries(ours, theirs, labels)
    if not with_ratio:
        return Comparison(difference, None)
    return Comparison(difference, ratio_of_seeds(*means) or ratio_of_queries(ours, theirs, labels))
