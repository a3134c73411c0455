from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdprop.errors import ResultError
from mdprop.regression import (
    DEFAULT_TOLERANCE,
    Drop,
    check,
    failures,
    notes,
    read_baseline,
    read_metrics,
    update,
    write_baseline,
)
from mdprop.report.aggregate import aggregate
from tests.report.synthetic import METHODS, THREATS, make_rows

SETS = ("clean", "worst_case", *THREATS)


def make_metrics() -> dict[str, Any]:
    return copy.deepcopy(aggregate(make_rows()))


def small(value: Any, name: str = "recall_at_1") -> dict[str, Any]:
    return {"at": {"clean": {name: {"mean": value, "std": 0.0, "n": 1}}}}


BASELINE = {"tolerance": {"*.recall_at_1": 0.02}, "metrics": {"at": {"clean": {"recall_at_1": 0.5}}}}


def test_update_records_recall_at_1_of_every_method_and_set() -> None:
    baseline = update(make_metrics())
    assert baseline["tolerance"] == DEFAULT_TOLERANCE
    assert {
        (method, name): list(metrics)
        for method, sets in baseline["metrics"].items()
        for name, metrics in sets.items()
    } == {(method, name): ["recall_at_1"] for method in METHODS for name in SETS}


def test_a_fresh_baseline_passes() -> None:
    metrics = make_metrics()
    baseline = update(metrics)
    assert check(metrics, baseline) == []
    assert notes(metrics, baseline) == []


def test_update_keeps_patterns_and_forgets_old_metrics() -> None:
    old = {
        "tolerance": {"*.nmi": 0.1},
        "lower_is_better": ["*.nmi"],
        "metrics": {"gone": {"clean": {"nmi": 1.0}}},
    }
    baseline = update(make_metrics(), old)
    assert (baseline["tolerance"], baseline["lower_is_better"]) == (old["tolerance"], old["lower_is_better"])
    assert set(baseline["metrics"]) == set(METHODS)
    assert list(baseline["metrics"]["at"]["clean"]) == ["nmi"]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_fails_exactly_when_it_falls_beyond_tolerance(
    value: float, expected: float, tolerance: float
) -> None:
    baseline = {"tolerance": {"*": tolerance}, "metrics": {"at": {"clean": {"recall_at_1": expected}}}}
    drops = check(small(value), baseline)
    gains = notes(small(value), baseline)
    if abs(abs(value - expected) - tolerance) > 1e-8:
        assert bool(drops) == (value < expected - tolerance)
        assert bool(gains) == (value > expected + tolerance)


def test_a_fall_by_the_tolerance_itself_passes() -> None:
    assert check(small(0.48), BASELINE) == []
    assert check(small(0.4799), BASELINE) == [Drop("at.clean.recall_at_1", 0.5, 0.4799, 0.02)]


def test_branches_are_checked_under_their_own_names() -> None:
    metrics = {"mdprop@clean+25%multi_target": small(0.5)["at"]}
    baseline = update(metrics)
    assert baseline["metrics"] == {"mdprop@clean+25%multi_target": {"clean": {"recall_at_1": 0.5}}}
    metrics["mdprop@clean+25%multi_target"] = small(0.3)["at"]
    (drop,) = check(metrics, baseline)
    assert drop.metric == "mdprop@clean+25%multi_target.clean.recall_at_1"
    assert drop.tolerance == DEFAULT_TOLERANCE["*.clean.recall_at_1"]


def test_first_pattern_wins() -> None:
    baseline = {**BASELINE, "tolerance": {"at.clean.*": 0.2, "*": 0.0}}
    assert check(small(0.4), baseline) == []
    assert check(small(0.4), {**baseline, "tolerance": {"*": 0.0, "at.clean.*": 0.2}})


def test_lower_is_better() -> None:
    baseline = {
        "tolerance": {"*": 0.02},
        "lower_is_better": ["*.spectral_decay"],
        "metrics": {"at": {"clean": {"spectral_decay": 0.5}}},
    }
    assert check(small(0.6, "spectral_decay"), baseline)
    assert check(small(0.4, "spectral_decay"), baseline) == []
    assert notes(small(0.4, "spectral_decay"), baseline)


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        {"standard": {}},
        {"at": {}},
        {"at": {"clean": {}}},
        {"at": 3},
        {"at": {"clean": {"recall_at_1": 0.5}}},
        {"at": {"clean": {"recall_at_1": {"std": 0.1}}}},
        small(None),
        small(float("nan")),
        small(float("inf")),
        small("0.5"),
        small(True),
    ],
)
def test_missing_and_undefined_values_fail(metrics: dict[str, Any]) -> None:
    drops = check(metrics, BASELINE)
    assert drops == [Drop("at.clean.recall_at_1", 0.5, None, 0.02)]
    assert str(drops[0]) == (
        "at.clean.recall_at_1: value missing or not a number, baseline 0.5000, tolerance 0.02"
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_each_missing_level_fails_for_all_below(depth: int) -> None:
    metrics = make_metrics()
    baseline = update(metrics)
    below: Any = metrics
    path = ["mdprop", "single_target_middle", "recall_at_1"][:depth]
    for key in path[:-1]:
        below = below[key]
    del below[path[-1]]
    drops = check(metrics, baseline)
    assert len(drops) == (len(SETS) if depth == 1 else 1)
    assert all(drop.metric.startswith(".".join(path)) and drop.value is None for drop in drops)


def test_one_line_names_metric_value_baseline_and_tolerance() -> None:
    (drop,) = check(small(0.31), BASELINE)
    assert str(drop) == "at.clean.recall_at_1: value 0.3100, baseline 0.5000, tolerance 0.02"


def test_notes_name_gains_and_what_has_no_baseline() -> None:
    assert notes(small(0.6), BASELINE) == [
        "at.clean.recall_at_1: value 0.6000 is better than its baseline 0.5000"
    ]
    near = {"near": {"recall_at_1": {"mean": 0.7, "std": 0.0, "n": 1}}}
    new = {"at": {**small(0.5)["at"], **near}}
    assert notes(new, BASELINE) == ["at.near.recall_at_1: value 0.7000 has no baseline"]
    assert check(new, BASELINE) == []


def test_methods_that_did_not_run_are_one_line() -> None:
    metrics = make_metrics()
    baseline = update(metrics)
    for method in ("at", "mdprop"):
        del metrics[method]
    metrics["standard"]["clean"]["recall_at_1"]["mean"] = 0.1
    drops = check(metrics, baseline)
    assert len(drops) == 2 * len(SETS) + 1
    assert failures(metrics, drops) == [
        str(next(drop for drop in drops if drop.metric == "standard.clean.recall_at_1")),
        f"not run: at, mdprop, with {2 * len(SETS)} metric(s) of the baseline",
    ]


def test_methods_without_a_baseline_are_one_line() -> None:
    metrics = make_metrics()
    baseline = update({"at": metrics["at"]})
    assert check(metrics, baseline) == []
    assert notes(metrics, baseline) == [
        f"without a baseline: standard, advprop, mdprop, with {3 * len(SETS)} metric(s)"
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": {}}, "'metrics' must be"),
        ({"metrics": {"at": {}}}, "'metrics' holds no metric"),
        ({"metrics": {"at": 0.5}}, "at = 0.5 must be method.set.metric"),
        ({"metrics": {"at": {"clean": 0.5}}}, r"at\.clean = 0.5 must be method.set.metric"),
        ({"metrics": {"at": {"clean": {"recall_at_1": None}}}}, r"at\.clean\.recall_at_1 = None"),
        ({"metrics": {"at": {"clean": {"recall_at_1": float("nan")}}}}, r"at\.clean\.recall_at_1 = nan"),
        ({"metrics": {"at": {"clean": {"nmi": 0.5}}}}, r"no pattern of 'tolerance' matches at\.clean\.nmi"),
        ({"tolerance": {}}, "'tolerance' must be"),
        ({"tolerance": {"*": -0.1}}, r"tolerance '\*' = -0.1 must be a number"),
        ({"tolerance": {"*": float("nan")}}, r"tolerance '\*' = nan must be a number"),
        ({"tolerance": {"*": "0.1"}}, r"tolerance '\*' = '0.1' must be a number"),
        ({"tolerances": {}}, "unknown key 'tolerances'; allowed: tolerance"),
        ({"lower_is_better": "*"}, "'lower_is_better' must be a list"),
    ],
)
def test_malformed_baseline_is_one_line_that_names_the_file(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({**BASELINE, **change}))
    with pytest.raises(ResultError, match=rf"baseline\.json: .*{message}") as caught:
        read_baseline(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ResultError, match=message):
        check(small(0.5), {**BASELINE, **change})


def test_missing_baseline_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"none\.json not found: make it with `mdprop check --update`"):
        read_baseline(tmp_path / "none.json")


def test_patterns_alone_are_enough_to_update(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text('{"tolerance": {"*.nmi": 0.1}}')
    assert update(make_metrics(), read_baseline(path, patterns_only=True))["metrics"]
    path.write_text('{"tolerance": 0.1}')
    with pytest.raises(ResultError, match="'tolerance' must be"):
        read_baseline(path, patterns_only=True)


def test_update_refuses_what_it_could_not_check() -> None:
    with pytest.raises(ResultError, match=r"at\.clean\.recall_at_1 is no finite number"):
        update(small(None))
    with pytest.raises(ResultError, match="nothing matches"):
        update({})


def test_write_and_read_back(tmp_path: Path) -> None:
    baseline = update(make_metrics())
    write_baseline(tmp_path / "baselines" / "smoke.json", baseline)
    assert read_baseline(tmp_path / "baselines" / "smoke.json") == baseline


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "3",
        '{"at": 3}',
        '{"at": {"clean": 0.5}}',
        '{"at": {"clean": {"recall_at_1": 0.5}}}',
        '{"at": {"clean": {"recall_at_1": {"mean": "0.5"}}}}',
        '{"at": {"clean": {"recall_at_1": {"mean": true}}}}',
        '{"at": {"clean": {"recall_at_1": {"mean": [0.5]}}}}',
        '{"at": {"clean": {"recall_at_1": null}}}',
    ],
)
def test_malformed_metrics_are_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(content)
    with pytest.raises(ResultError, match=rf"^{path}.* must .*: run `dvc repro`$") as caught:
        read_metrics(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mean", ["0.5", "null", "NaN", "1" + "0" * 400])
def test_metrics_that_are_missing_or_undefined_are_read(tmp_path: Path, mean: str) -> None:
    (tmp_path / "metrics.json").write_text(f'{{"at": {{"clean": {{"recall_at_1": {{"mean": {mean}}}}}}}}}')
    metrics = read_metrics(tmp_path / "metrics.json")
    assert len(check(metrics, BASELINE)) == (mean != "0.5")
