from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdprop.errors import ResultError
from mdprop.files import sealed_json
from mdprop.report.aggregate import aggregate, branch_of, collect, method_of, read_summary, to_json
from mdprop.runs import Run
from tests.report.synthetic import METHODS, THREATS, make_metrics, make_rows, runs_of, write_runs


def test_collect_reads_the_named_runs_only(folder: Path) -> None:
    write_runs(runs_of(METHODS, (0, 1)))
    rows = collect([Run("mdprop", 1), Run("at", 1)])
    assert rows == {"mdprop": {1: make_metrics("mdprop", 1)}, "at": {1: make_metrics("at", 1)}}


def test_each_method_is_followed_by_its_branches(folder: Path) -> None:
    mixture = "clean+25%multi_target"
    runs = runs_of(["standard", "advprop", "mdprop"], (0, 1))
    write_runs(runs, {"advprop": ["clean", "single_target"], "mdprop": ["clean", "multi_target", mixture]})
    summary = aggregate(collect(runs))
    assert list(summary) == [
        "standard",
        "advprop",
        "advprop@single_target",
        "mdprop",
        "mdprop@multi_target",
        f"mdprop@{mixture}",
    ]
    assert all(list(sets) == ["clean", *THREATS, "worst_case"] for sets in summary.values())
    found = make_metrics("mdprop", 0, [mixture]), make_metrics("mdprop", 1, [mixture])
    expected = mean(metrics[f"clean@{mixture}"]["nmi"] for metrics in found)
    assert summary[f"mdprop@{mixture}"]["clean"]["nmi"]["mean"] == pytest.approx(expected)
    assert summary["mdprop"]["clean"]["nmi"]["n"] == 2


def test_without_the_clean_branch_there_is_no_row_of_it(folder: Path) -> None:
    runs = runs_of(["standard", "mdprop"])
    write_runs(runs, {"mdprop": ["multi_target"]})
    assert list(collect(runs)) == ["standard", "mdprop@multi_target"]


def test_a_row_is_a_method_and_a_branch() -> None:
    assert (method_of("mdprop"), branch_of("mdprop")) == ("mdprop", "")
    row = "mdprop@clean+25%multi_target"
    assert (method_of(row), branch_of(row)) == ("mdprop", "clean+25%multi_target")


def test_one_seed_has_no_spread() -> None:
    stat = aggregate(make_rows(seeds=(3,)))["mdprop"]["clean"]["recall_at_1"]
    assert stat == {"mean": make_metrics("mdprop", 3)["clean"]["recall_at_1"], "std": 0.0, "n": 1}


def test_spread_is_the_sample_standard_deviation() -> None:
    runs = {"at": {seed: {"clean": {"nmi": value}} for seed, value in enumerate((0.1, 0.2, 0.6))}}
    stat = aggregate(runs)["at"]["clean"]["nmi"]
    assert stat["mean"] == pytest.approx(0.3)
    assert stat["std"] == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert stat["n"] == 3


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_mean_lies_within_the_seeds(values: list[float]) -> None:
    stat = aggregate({"at": {i: {"clean": {"nmi": v}} for i, v in enumerate(values)}})["at"]["clean"]["nmi"]
    assert stat["mean"] == pytest.approx(mean(values))
    assert min(values) - 1e-12 <= stat["mean"] <= max(values) + 1e-12
    assert stat["n"] == len(values)
    assert 0 <= stat["std"] <= 1


def test_a_metric_that_one_seed_lacks_counts_the_others() -> None:
    runs = {"at": {0: {"clean": {"nmi": 0.5}}, 1: {"clean": {"f1": 0.25}, "untargeted": {"f1": 0.75}}}}
    assert aggregate(runs)["at"] == {
        "clean": {"nmi": {"mean": 0.5, "std": 0.0, "n": 1}, "f1": {"mean": 0.25, "std": 0.0, "n": 1}},
        "untargeted": {"f1": {"mean": 0.75, "std": 0.0, "n": 1}},
    }


@pytest.mark.parametrize("value", ["null", "NaN", "Infinity", "-Infinity"])
def test_undefined_in_one_seed_makes_the_mean_undefined(folder: Path, value: str) -> None:
    runs = runs_of(["at"], [0, 1])
    write_runs(runs)
    runs[1].metrics.write_text(sealed_json(json.loads(f'{{"clean": {{"recall_at_1": {value}}}}}')))
    summary = aggregate(collect(runs))
    assert summary["at"]["clean"]["recall_at_1"] == {"mean": None, "std": None, "n": 2}
    assert "NaN" not in to_json(summary)


def test_missing_run_names_file_and_remedy(folder: Path) -> None:
    write_runs(runs_of(["at"]))
    with pytest.raises(ResultError, match=r"at/1/metrics\.json not found: run `dvc repro`$"):
        collect(runs_of(["at"], [0, 1]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"clean": {"recall_at_1": 0.5', r"metrics\.json is damaged"),
        ('{"clean": {"recall_at_1": 0.5}}', r"metrics\.json is damaged, or of another version of mdprop"),
        (sealed_json({}), r"metrics\.json holds no input set"),
        (sealed_json({"clean": 0.5}), "clean must be"),
        (sealed_json({"clean": {"recall_at_1": "high"}}), r"clean\.recall_at_1 = 'high' is no number"),
        (sealed_json({"clean": {"recall_at_1": True}}), r"clean\.recall_at_1 = True is no number"),
    ],
)
def test_corrupt_run_names_file_and_remedy(folder: Path, content: str, message: str) -> None:
    run = Run("at", 0)
    write_runs([run])
    run.metrics.write_text(content)
    with pytest.raises(ResultError, match=message) as caught:
        collect([run])
    assert str(run.metrics) in str(caught.value)
    assert str(caught.value).endswith("delete it and run `dvc repro`")
    assert "\n" not in str(caught.value)


def test_json_is_deterministic_and_reads_back(tmp_path: Path) -> None:
    text = to_json(aggregate(make_rows(seeds=(0, 1))))
    assert text == to_json(aggregate(make_rows(seeds=(0, 1))))
    path = tmp_path / "metrics.json"
    path.write_text(text)
    summary = read_summary(path)
    assert list(summary) == list(METHODS)
    assert list(summary["at"]) == ["clean", *THREATS, "worst_case"]
    assert summary == json.loads(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds no method"),
        ({"at": 3}, r"metrics\.json: at must be"),
        ({"at": {"clean": 3}}, r"at\.clean must be"),
        ({"at": {"clean": {"nmi": 0.3}}}, r"at\.clean must be"),
        ({"at": {"clean": {"nmi": {"mean": 0.3, "std": None, "n": 1}}}}, r"at\.clean must be"),
    ],
)
def test_malformed_summary(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ResultError, match=message):
        read_summary(path)
