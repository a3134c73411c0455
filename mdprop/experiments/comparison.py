"""Experiments against the first of them: what differs in their parameters, and in Recall@1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mdprop.branches import CLEAN
from mdprop.experiments.repository import Experiment
from mdprop.report.confidence import Comparison
from mdprop.report.intervals import comparisons, recall_intervals
from mdprop.runs import WORST_CASE
from mdprop.statistics import Interval


@dataclass(frozen=True)
class Line:
    """One method of one experiment, and its Recall@1 by input set.

    against: the first experiment's same method, on what both have; without an entry where that is nothing.
    """

    method: str
    experiment: Experiment
    recall: Mapping[str, Interval]
    against: Mapping[str, Comparison]


@dataclass(frozen=True)
class Compared:
    """Experiments, of which the first is what the others are compared with.

    differing: the parameters that are not the same in all. lines: method by method. sets: input sets,
    `clean` and `worst_case` first. notes: what could not be paired, a sentence each.
    """

    experiments: Sequence[Experiment]
    differing: Sequence[str]
    lines: Sequence[Line]
    sets: Sequence[str]
    notes: Sequence[str]

    @property
    def headline(self) -> list[str]:
        """The input sets to look at first: clean and the worst case; without the latter all."""
        return (
            [name for name in self.sets if name in (CLEAN, WORST_CASE)]
            if WORST_CASE in self.sets
            else [*self.sets]
        )


def compare_experiments(experiments: Sequence[Experiment]) -> Compared:
    """Compare two experiments or more, method by method, each with the first."""
    first = experiments[0]
    paired = [e for e in experiments if e is first or e.images.are(first.images)]
    methods = list(dict.fromkeys(row for e in experiments for row in e.results))
    lines: list[Line] = []
    for method in methods:
        own = {e.name: e.results[method] for e in experiments if method in e.results}
        alike = {e.name: own[e.name] for e in paired if e.name in own}
        recall = recall_intervals(own)
        against = comparisons(alike, first.name) if first.name in alike else {}
        lines += [
            Line(method, e, recall[e.name], against.get(e.name, {})) for e in experiments if e.name in own
        ]
    names = dict.fromkeys(name for line in lines for name in line.recall)
    leading = [name for name in (CLEAN, WORST_CASE) if name in names]
    return Compared(
        experiments,
        differing_parameters(experiments),
        lines,
        [*leading, *(name for name in names if name not in leading)],
        [*_evaluated_notes(experiments), *(note for e in experiments[1:] for note in _notes(e, first))],
    )


def differing_parameters(experiments: Sequence[Experiment]) -> list[str]:
    """The dotted keys whose values are not the same in all, in the order of the parameters."""
    keys = dict.fromkeys(key for e in experiments for key in e.parameters)
    values = {key: [e.parameters.get(key) for e in experiments] for key in keys}
    return [key for key, found in values.items() if any(value != found[0] for value in found)]


def by_parameters(experiments: Sequence[Experiment]) -> list[Experiment]:
    """By growing values of what differs, for experiments whose names say nothing."""
    keys = differing_parameters(experiments)
    return sorted(experiments, key=lambda e: ([_place(e.parameters.get(key)) for key in keys], e.name))


def _place(value: Any) -> tuple[int, float, str]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (0, float(value), "") if is_number else (1, 0.0, str(value))


def _evaluated_notes(experiments: Sequence[Experiment]) -> list[str]:
    """Whose numbers are not of test classes."""
    found = [e.name for e in experiments if e.parameters.get("dataset.evaluate") == "validation"]
    who = "all experiments" if len(found) == len(experiments) else ", ".join(found)
    return [f"the numbers of {who} are of validation classes, not of test classes"] if found else []


def _notes(experiment: Experiment, first: Experiment) -> list[str]:
    """What of an experiment and the first is not paired, or only in part."""
    who = f"{experiment.name} and {first.name}"
    if not experiment.images.are(first.images):
        return [f"{who} were tested on other images: no comparison, each number stands for itself"]
    shared = [method for method in experiment.results if method in first.results]
    if not shared:
        return [f"{who} have no method in common: no comparison"]
    seeds, theirs = (_seeds(e, shared) for e in (experiment, first))
    if not seeds & theirs:
        return [f"{who} have no seed in common: no comparison"]
    notes = []
    if seeds != theirs:
        common = ", ".join(map(str, sorted(seeds & theirs)))
        notes.append(f"{who} are compared on the seed(s) that both have: {common}")
    return notes + _query_notes(experiment, first, shared, who)


def _seeds(experiment: Experiment, methods: Sequence[str]) -> set[int]:
    return {s for m in methods for by_seed in experiment.results[m].values() for s in by_seed}


def _query_notes(experiment: Experiment, first: Experiment, methods: Sequence[str], who: str) -> list[str]:
    """Which input sets are compared on a part of their queries, by how many; those of one count together."""
    counts: dict[tuple[int, int], list[str]] = {}
    for method in methods:
        for name, by_seed in experiment.results[method].items():
            for seed, hits in by_seed.items():
                theirs = first.results[method].get(name, {}).get(seed)
                if theirs is None:
                    continue
                shared, most = len(np.intersect1d(hits.ids, theirs.ids)), max(len(hits.ids), len(theirs.ids))
                if shared < most and name not in counts.setdefault((shared, most), []):
                    counts[shared, most].append(name)
    return [
        f"{who} are compared on the {shared} of {most} queries that both have: {', '.join(names)}"
        if shared
        else f"{who} have no query in common, and no comparison: {', '.join(names)}"
        for (shared, most), names in counts.items()
    ]
