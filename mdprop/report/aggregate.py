"""The metrics of many runs, as mean and spread over seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, TypedDict

from mdprop.errors import ResultError
from mdprop.files import read_json, read_sealed_json
from mdprop.runs import Run

REMEDY = "run `dvc repro`"


class Stat(TypedDict):
    """One metric over the seeds that have it.

    mean: None where a seed's value is null or not finite (a mean of the others would mislead).
    std: the sample standard deviation (divisor n - 1); 0.0 where n = 1.
    n: how many seeds have the metric.
    """

    mean: float | None
    std: float | None
    n: int


Metrics = Mapping[str, Mapping[str, float | None]]  # input set -> metric -> value
Rows = Mapping[str, Mapping[int, Metrics]]  # row -> seed -> metrics
Summary = Mapping[str, Mapping[str, Mapping[str, Stat]]]  # row -> input set -> metric
"""A row is a method, or a method and the branch it answers through, where that is not the clean one:
`mdprop@multi_target`."""


def method_of(row: str) -> str:
    return row.partition("@")[0]


def branch_of(row: str) -> str:
    """The branch or mixture that answers; empty for the clean one."""
    return row.partition("@")[2]


def collect(runs: Iterable[Run]) -> Rows:
    """The metrics.json of these runs: a row a method, followed by a row for each other branch of it.

    runs: the seeds of a method side by side.

    A value that is null or not finite becomes None. Raises `ResultError` where a file is missing
    or is not {input set: {metric: number}}; sets of another branch are called <set>@<branch>.
    """
    rows: dict[str, dict[int, dict[str, Mapping[str, float | None]]]] = {}
    for run in runs:
        for name, metrics in _read_metrics(run.metrics).items():
            input_set, at, branch = name.partition("@")
            rows.setdefault(f"{run.method}{at}{branch}", {}).setdefault(run.seed, {})[input_set] = metrics
    return rows


def _read_metrics(path: Path) -> Metrics:
    remedy = f"delete it and {REMEDY}" if path.exists() else REMEDY
    content = read_sealed_json(path, REMEDY)
    if not content:
        raise ResultError(f"{path} holds no input set: {remedy}")
    read: dict[str, dict[str, float | None]] = {}
    for input_set, metrics in content.items():
        if not isinstance(metrics, dict):
            raise ResultError(f"{path}: {input_set} must be {{metric: number}}: {remedy}")
        for metric, value in metrics.items():
            if value is not None and not _is_number(value):
                raise ResultError(f"{path}: {input_set}.{metric} = {value!r} is no number: {remedy}")
        read[input_set] = {m: v if v is not None and math.isfinite(v) else None for m, v in metrics.items()}
    return read


def aggregate(rows: Rows) -> Summary:
    """Mean and spread over seeds, in the order of the files' own input sets and metrics."""
    summary: dict[str, dict[str, dict[str, Stat]]] = {}
    for row, by_seed in rows.items():
        summary[row] = {}
        for input_set in _ordered_union(by_seed.values()):
            parts = [metrics[input_set] for metrics in by_seed.values() if input_set in metrics]
            summary[row][input_set] = {
                metric: _stat([part[metric] for part in parts if metric in part])
                for metric in _ordered_union(parts)
            }
    return summary


def _ordered_union(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _stat(values: Sequence[float | None]) -> Stat:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return Stat(mean=None, std=None, n=len(values))
    return Stat(mean=fmean(known), std=stdev(known) if len(known) > 1 else 0.0, n=len(known))


def to_json(summary: Summary) -> str:
    """report/metrics.json: the same summary, the same bytes."""
    return json.dumps(summary, indent=2, allow_nan=False) + "\n"


def read_summary(path: Path) -> Summary:
    """Read a report/metrics.json back. Raises `ResultError`."""
    content = read_json(path, REMEDY)
    for method, input_sets in content.items():
        for input_set, metrics in input_sets.items() if isinstance(input_sets, dict) else [("", None)]:
            stats = metrics.values() if isinstance(metrics, dict) else [None]
            if not all(_is_stat(stat) for stat in stats):
                where = f"{method}.{input_set}".rstrip(".")
                raise ResultError(f"{path}: {where} must be {{metric: {{mean, std, n}}}}: {REMEDY}")
    if not content:
        raise ResultError(f"{path} holds no method: {REMEDY}")
    return content


def _is_stat(stat: object) -> bool:
    if not isinstance(stat, dict) or set(stat) != set(Stat.__annotations__):
        return False
    known = _is_number(stat["mean"]) and _is_number(stat["std"])
    return isinstance(stat["n"], int) and (known or (stat["mean"] is None and stat["std"] is None))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
