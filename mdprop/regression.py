"""The metric regression check: report/metrics.json against a committed baseline.

A baseline is JSON:

    {"tolerance": {"*.clean.recall_at_1": 0.02, "*.recall_at_1": 0.04},
     "metrics": {"standard": {"clean": {"recall_at_1": 0.783}}}}

A metric is named `method.set.metric`. The first pattern of `tolerance` that matches (shell
wildcards; `*` matches dots too) gives how far it may fall, absolute, in fractions of 1. The patterns
also say what is checked: `update` records the metrics that one of them matches. Higher is better,
but for the patterns of an optional list `lower_is_better`.
"""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from mdprop.errors import ResultError
from mdprop.files import read_json, write_files

DEFAULT_TOLERANCE = {"*.clean.recall_at_1": 0.02, "*.recall_at_1": 0.04}
ROUNDING = 1e-9  # a fall by exactly the tolerance passes
MAKE_IT = "make it with `mdprop check --update`"


@dataclass(frozen=True)
class Drop:
    """A metric that fell beyond its tolerance; `value` is None where it is missing or not finite."""

    metric: str
    baseline: float
    value: float | None
    tolerance: float

    def __str__(self) -> str:
        value = "missing or not a number" if self.value is None else f"{self.value:.4f}"
        return f"{self.metric}: value {value}, baseline {self.baseline:.4f}, tolerance {self.tolerance:g}"


def check(metrics: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[Drop]:
    """What fell: every metric of the baseline must be there, finite, and within its tolerance.

    metrics: as in report/metrics.json, {method: {set: {metric: {"mean": number}}}}.
    Raises `ResultError` where the baseline is malformed or checks nothing.
    """
    means = dict(_means(metrics))
    drops = []
    for name, expected, tolerance in _expected(baseline):
        value = means.get(name)
        if value is None or _gain(baseline, name, value, expected) < -tolerance - ROUNDING:
            drops.append(Drop(name, expected, value, tolerance))
    return drops


def failures(metrics: Mapping[str, Any], drops: Sequence[Drop]) -> list[str]:
    """A line for each drop; one for all of those of methods that did not run."""
    absent = [drop for drop in drops if _method(drop.metric) not in metrics]
    lines = [str(drop) for drop in drops if drop not in absent]
    if absent:
        methods = ", ".join(dict.fromkeys(_method(drop.metric) for drop in absent))
        lines.append(f"not run: {methods}, with {len(absent)} metric(s) of the baseline")
    return lines


def notes(metrics: Mapping[str, Any], baseline: Mapping[str, Any]) -> list[str]:
    """What does not fail but asks for a new baseline: gains beyond tolerance, metrics without a baseline.

    One line for all the metrics of methods that the baseline does not know.
    """
    known = {name: expected for name, expected, _ in _expected(baseline)}
    methods = {_method(name) for name in known}
    lines: list[str] = []
    others: list[str] = []
    for name, value in _means(metrics):
        tolerance = _tolerance(baseline, name)
        if tolerance is None or value is None:
            continue
        if _method(name) not in methods:
            others.append(_method(name))
        elif name not in known:
            lines.append(f"{name}: value {value:.4f} has no baseline")
        elif _gain(baseline, name, value, known[name]) > tolerance + ROUNDING:
            lines.append(f"{name}: value {value:.4f} is better than its baseline {known[name]:.4f}")
    if others:
        lines.append(f"without a baseline: {', '.join(dict.fromkeys(others))}, with {len(others)} metric(s)")
    return lines


def _method(metric: str) -> str:
    return metric.partition(".")[0]


def update(metrics: Mapping[str, Any], baseline: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A baseline from a report's metrics, with the patterns of `baseline` (default: Recall@1 of every set).

    Raises `ResultError` where a metric to record is no finite number, or there is none to record.
    """
    kept = {key: value for key, value in (baseline or {}).items() if key != "metrics"}
    result: dict[str, Any] = {"tolerance": DEFAULT_TOLERANCE, **kept, "metrics": {}}
    _check_patterns(result)
    for name, value in _means(metrics):
        if _tolerance(result, name) is None:
            continue
        if value is None:
            raise ResultError(f"metrics: {name} is no finite number: mend the run first")
        method, input_set, metric = name.split(".", 2)
        result["metrics"].setdefault(method, {}).setdefault(input_set, {})[metric] = round(value, 6)
    if not result["metrics"]:
        raise ResultError(f"metrics: nothing matches {', '.join(result['tolerance'])}: run `dvc repro` first")
    return result


def read_metrics(path: Path) -> dict[str, Any]:
    """A report's metrics. Raises `ResultError`, one line, where the file is missing or malformed.

    What is missing in it, null or not finite is for `check` to say.
    """
    metrics = read_json(path, "run `dvc repro`")
    for name, leaf in _leaves(metrics):
        mean = leaf.get("mean") if isinstance(leaf, Mapping) and name.count(".") >= 2 else leaf
        is_number = isinstance(mean, (int, float)) and not isinstance(mean, bool)
        if mean is leaf or not (mean is None or is_number):
            shown = textwrap.shorten(repr(leaf), 60, placeholder=" ...")
            raise ResultError(
                f'{path}: {name} = {shown} must be method.set.metric and {{"mean": number}}: run `dvc repro`'
            )
    return metrics


def read_baseline(path: Path, *, patterns_only: bool = False) -> dict[str, Any]:
    """The baseline in `path`. Raises `ResultError`, one line, where it is missing or malformed.

    patterns_only: its metrics may be missing or outdated, since `update` is to replace them.
    """
    baseline = read_json(path, MAKE_IT)
    try:
        if patterns_only:
            _check_patterns(baseline)
        else:
            _expected(baseline)
    except ResultError as error:
        raise ResultError(f"{path}: {error}") from None
    return baseline


def write_baseline(path: Path, baseline: Mapping[str, Any]) -> None:
    write_files({path: json.dumps(baseline, indent=2, allow_nan=False) + "\n"})


def _leaves(tree: Any, depth: int = 3) -> Iterator[tuple[str, Any]]:
    """`method.set.metric` and what is there; a branch that ends early is named as far as it goes."""
    for key, below in tree.items():
        if depth > 1 and isinstance(below, Mapping):
            yield from ((f"{key}.{name}", leaf) for name, leaf in _leaves(below, depth - 1))
        else:
            yield key, below


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _means(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    for name, leaf in _leaves(metrics):
        yield name, _finite(leaf.get("mean")) if isinstance(leaf, Mapping) else None


def _tolerance(baseline: Mapping[str, Any], name: str) -> float | None:
    """Of the first pattern that matches; None where none does: the metric is not checked."""
    return next((t for pattern, t in baseline["tolerance"].items() if fnmatchcase(name, pattern)), None)


def _gain(baseline: Mapping[str, Any], name: str, value: float, expected: float) -> float:
    """How much better `value` is than `expected`, negative for worse."""
    lower_is_better = any(fnmatchcase(name, pattern) for pattern in baseline.get("lower_is_better", []))
    return expected - value if lower_is_better else value - expected


def _check_patterns(baseline: Mapping[str, Any]) -> None:
    unknown = set(baseline) - {"tolerance", "lower_is_better", "metrics"}
    if unknown:
        raise ResultError(f"unknown key '{min(unknown)}'; allowed: tolerance, lower_is_better, metrics")
    tolerances = baseline.get("tolerance")
    if not isinstance(tolerances, Mapping) or not tolerances:
        raise ResultError("'tolerance' must be {pattern: number}, one or more")
    for pattern, tolerance in tolerances.items():
        if _finite(tolerance) is None or tolerance < 0:
            raise ResultError(f"tolerance '{pattern}' = {tolerance!r} must be a number, 0 or more")
    patterns = baseline.get("lower_is_better", [])
    if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
        raise ResultError("'lower_is_better' must be a list of patterns")


def _expected(baseline: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """The names, values and tolerances of a baseline, once its shape is checked."""
    _check_patterns(baseline)
    metrics = baseline.get("metrics")
    if not isinstance(metrics, Mapping) or not metrics:
        raise ResultError(f"'metrics' must be {{method: {{set: {{metric: value}}}}}}, not empty: {MAKE_IT}")
    expected = []
    for name, leaf in _leaves(metrics):
        value, tolerance = _finite(leaf), _tolerance(baseline, name)
        if value is None or name.count(".") < 2:
            raise ResultError(f"{name} = {leaf!r} must be method.set.metric and a finite number: {MAKE_IT}")
        if tolerance is None:
            raise ResultError(f"no pattern of 'tolerance' matches {name}: add one")
        expected.append((name, value, tolerance))
    if not expected:
        raise ResultError(f"'metrics' holds no metric: {MAKE_IT}")
    return expected
