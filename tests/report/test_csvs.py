from __future__ import annotations

import csv
import io

import pytest

from mdprop.report.aggregate import aggregate
from mdprop.report.csvs import recall_csv, robustness_csv, table_csv
from tests.report.synthetic import EPSILONS, KS, METHODS, make_run, make_runs


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_recall_has_a_row_a_k_and_a_column_a_method() -> None:
    found = rows(recall_csv(aggregate(make_runs(seeds=(0, 1)))))
    assert list(found[0]) == ["k", *METHODS]
    assert [row["k"] for row in found] == [str(k) for k in KS]
    expected = sum(make_run("mdprop", seed)["clean"]["recall_at_4"] for seed in (0, 1)) / 2
    assert float(found[2]["mdprop"]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("goal", ["single_target", "multi_target"])
def test_robustness_begins_with_clean(goal: str) -> None:
    found = rows(robustness_csv(aggregate(make_runs()), EPSILONS, goal))
    assert list(found[0]) == ["epsilon", *METHODS]
    assert [float(row["epsilon"]) for row in found] == [0.0, 0.05, 0.1, 0.2]
    assert float(found[0]["at"]) == pytest.approx(make_run("at", 0)["clean"]["recall_at_1"], abs=1e-6)
    expected = make_run("at", 0)[f"{goal}_large"]["recall_at_1"]
    assert float(found[3]["at"]) == pytest.approx(expected, abs=1e-6)


def test_robustness_without_sets_of_the_goal_is_clean_alone() -> None:
    runs = {"at": {0: {"clean": {"recall_at_1": 0.5}}}}
    assert robustness_csv(aggregate(runs), {}, "multi_target") == "epsilon,at\n0.0,0.5\n"


def test_table_has_a_row_a_metric_against_standard() -> None:
    found = rows(table_csv(aggregate(make_runs(seeds=(0, 1))), EPSILONS))
    assert list(found[0]) == [
        "method",
        "input_set",
        "epsilon",
        "metric",
        "mean",
        "std",
        "n",
        "difference",
        "ratio",
    ]
    by_key = {(row["method"], row["input_set"], row["metric"]): row for row in found}
    assert (
        len(by_key)
        == len(found)
        == sum(len(metrics) for metrics in make_run("at", 0).values()) * len(METHODS)
    )
    row = by_key["mdprop", "multi_target_large", "recall_at_1"]
    standard = by_key["standard", "multi_target_large", "recall_at_1"]
    assert (row["epsilon"], row["n"]) == ("0.2", "2")
    assert float(row["difference"]) == pytest.approx(float(row["mean"]) - float(standard["mean"]), abs=2e-6)
    assert float(row["ratio"]) == pytest.approx(float(row["mean"]) / float(standard["mean"]), abs=1e-4)
    assert float(row["std"]) > 0


def test_missing_values_are_empty() -> None:
    runs = {
        "at": {0: {"clean": {"recall_at_1": 0.5}, "untargeted": {"recall_at_1": None}}},
        "mdprop": {0: {"clean": {"recall_at_2": 0.6}}},
    }
    summary = aggregate(runs)
    assert recall_csv(summary) == "k,at,mdprop\n1,0.5,\n2,,0.6\n"
    assert "at,untargeted,,recall_at_1,,,1,,\n" in table_csv(summary, {})
