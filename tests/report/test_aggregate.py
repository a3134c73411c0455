from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdprop.errors import ResultError
from mdprop.report.aggregate import aggregate, collect, read_summary, to_json
from tests.report.synthetic import EPSILONS, METHODS, make_run, make_runs, write_runs


def test_collect_reads_the_named_runs_only(tmp_path: Path) -> None:
    write_runs(tmp_path, METHODS, (0, 1))
    runs = collect(tmp_path, ["mdprop", "at"], [1])
    assert runs == {"mdprop": {1: make_run("mdprop", 1)}, "at": {1: make_run("at", 1)}}


def test_one_seed_has_no_spread() -> None:
    stat = aggregate(make_runs(seeds=(3,)))["mdprop"]["clean"]["recall_at_1"]
    assert stat == {"mean": make_run("mdprop", 3)["clean"]["recall_at_1"], "std": 0.0, "n": 1}


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
def test_undefined_in_one_seed_makes_the_mean_undefined(tmp_path: Path, value: str) -> None:
    write_runs(tmp_path, ["at"], [0, 1])
    (tmp_path / "at" / "1" / "metrics.json").write_text(f'{{"clean": {{"recall_at_1": {value}}}}}')
    summary = aggregate(collect(tmp_path, ["at"], [0, 1]))
    assert summary["at"]["clean"]["recall_at_1"] == {"mean": None, "std": None, "n": 2}
    assert "NaN" not in to_json(summary)


def test_missing_run_names_file_and_remedy(tmp_path: Path) -> None:
    write_runs(tmp_path, ["at"], [0])
    with pytest.raises(ResultError, match=r"at/1/metrics\.json not found: run `dvc repro`$"):
        collect(tmp_path, ["at"], [0, 1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"clean": {"recall_at_1": 0.5', r"metrics\.json is not valid JSON"),
        ("{}", r"metrics\.json holds no input set"),
        ('{"clean": 0.5}', "clean must be"),
        ('{"clean": {"recall_at_1": "high"}}', r"clean\.recall_at_1 = 'high' is no number"),
        ('{"clean": {"recall_at_1": true}}', r"clean\.recall_at_1 = True is no number"),
    ],
)
def test_corrupt_run_names_file_and_remedy(tmp_path: Path, content: str, message: str) -> None:
    write_runs(tmp_path, ["at"], [0])
    path = tmp_path / "at" / "0" / "metrics.json"
    path.write_text(content)
    with pytest.raises(ResultError, match=message) as caught:
        collect(tmp_path, ["at"], [0])
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("delete it and run `dvc repro`")
    assert "\n" not in str(caught.value)


def test_json_is_deterministic_and_reads_back(tmp_path: Path) -> None:
    text = to_json(aggregate(make_runs(seeds=(0, 1))))
    assert text == to_json(aggregate(make_runs(seeds=(0, 1))))
    path = tmp_path / "metrics.json"
    path.write_text(text)
    summary = read_summary(path)
    assert list(summary) == list(METHODS)
    assert list(summary["at"]) == ["clean", *EPSILONS]
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
