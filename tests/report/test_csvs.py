from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from mdprop.attacks.threat import Threat
from mdprop.errors import ResultError
from mdprop.files import sealed_json
from mdprop.report.aggregate import aggregate, collect
from mdprop.report.confidence import Intervals
from mdprop.report.csvs import recall_csv, robustness_csv, table_csv, training_csv
from mdprop.report.curves import read_curves
from mdprop.runs import Run
from mdprop.statistics import Interval
from mdprop.training import curve_digests
from tests.report.synthetic import (
    KS,
    METHODS,
    THREATS,
    make_metrics,
    make_rows,
    runs_of,
    write_curves,
    write_runs,
)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_recall_has_a_row_a_method_and_k() -> None:
    found = rows(recall_csv(aggregate(make_rows(seeds=(0, 1)))))
    assert list(found[0]) == ["method", "k", "recall"]
    assert [(row["method"], row["k"]) for row in found] == [(m, str(k)) for m in METHODS for k in KS]
    values = {(row["method"], row["k"]): float(row["recall"]) for row in found}
    expected = sum(make_metrics("mdprop", seed)["clean"]["recall_at_4"] for seed in (0, 1)) / 2
    assert values["mdprop", "4"] == pytest.approx(expected, abs=1e-6)


def test_robustness_has_every_goal_and_begins_with_clean() -> None:
    found = rows(robustness_csv(aggregate(make_rows()), THREATS))
    assert list(found[0]) == ["method", "attack", "goal", "norm", "units", "epsilon", "recall_at_1"]
    assert list(dict.fromkeys(row["goal"] for row in found)) == [
        "single_target",
        "multi_target",
        "untargeted",
        "unadversarial",
    ]
    curve = [row for row in found if (row["method"], row["goal"]) == ("at", "multi_target")]
    assert [float(row["epsilon"]) for row in curve] == [0.0, 0.05, 0.1, 0.2]
    assert {(row["attack"], row["norm"], row["units"]) for row in curve} == {
        ("multi-targeted", "linf", "pixel")
    }
    metrics = make_metrics("at", 0)
    assert float(curve[0]["recall_at_1"]) == pytest.approx(metrics["clean"]["recall_at_1"], abs=1e-6)
    expected = metrics["multi_target_large"]["recall_at_1"]
    assert float(curve[3]["recall_at_1"]) == pytest.approx(expected, abs=1e-6)


def test_attacks_by_other_means_are_curves_of_their_own() -> None:
    threats = {
        "brief": Threat(goal="single_target", epsilon=0.1),
        "long": Threat(goal="single_target", epsilon=0.1, steps=50),
        "far": Threat(goal="single_target", epsilon=2.0, norm="l2"),
    }
    found = rows(robustness_csv(aggregate(make_rows(["at"], threats=threats)), threats))
    assert [(row["attack"], row["norm"], row["epsilon"]) for row in found] == [
        ("single-targeted, ℓ∞, steps 10", "linf", "0.0"),
        ("single-targeted, ℓ∞, steps 10", "linf", "0.1"),
        ("single-targeted, ℓ∞, steps 50", "linf", "0.0"),
        ("single-targeted, ℓ∞, steps 50", "linf", "0.1"),
        ("single-targeted, ℓ2, steps 10", "l2", "0.0"),
        ("single-targeted, ℓ2, steps 10", "l2", "2.0"),
    ]


def test_robustness_leaves_out_sets_without_a_known_attack() -> None:
    header = "method,attack,goal,norm,units,epsilon,recall_at_1\n"
    assert robustness_csv(aggregate(make_rows()), {}) == header


def test_training_has_a_row_an_epoch(folder: Path) -> None:
    runs = runs_of(["at", "mdprop"], (0, 1))
    write_curves(runs[0], every=3)
    write_curves(runs[3])
    assert training_csv(read_curves(runs)) == (
        "method,seed,epoch,loss,validation_recall_at_1\n"
        "at,0,1,1.5,\n"
        "at,0,2,0.9,\n"
        "at,0,3,0.7,0.55\n"
        "mdprop,1,1,1.5,0.3\n"
        "mdprop,1,2,0.9,0.45\n"
        "mdprop,1,3,0.7,0.55\n"
    )


def test_training_without_validation_and_with_a_value_that_diverged(folder: Path) -> None:
    run = Run("at", 0)
    path = run.live / "plots" / "metrics" / "train" / "loss.tsv"
    path.parent.mkdir(parents=True)
    path.write_text("step\tloss\n1\t0.5\n2\tnan\n")
    text = training_csv(read_curves([run]))
    assert text == "method,seed,epoch,loss,validation_recall_at_1\nat,0,1,0.5,\n"


def test_a_curve_that_the_model_names_must_be_there(folder: Path) -> None:
    run = Run("at", 0)
    write_curves(run)
    run.folder.mkdir(parents=True)
    (run.folder / "model.json").write_text(sealed_json({"curves": curve_digests(run.live)}))
    assert read_curves([run])[run]["loss"] == [(1, 1.5), (2, 0.9), (3, 0.7)]
    (run.live / "plots" / "metrics" / "train" / "loss.tsv").unlink()
    with pytest.raises(ResultError, match=r"loss\.tsv cannot be read \(No such file .*: run `dvc repro`$"):
        read_curves([run])


def test_branches_are_methods_of_their_own(folder: Path) -> None:
    runs = runs_of(["standard", "mdprop"])
    write_runs(runs, {"mdprop": ["clean", "multi_target"]})
    summary = aggregate(collect(runs))
    for text in (recall_csv(summary), robustness_csv(summary, THREATS), table_csv(summary, THREATS)):
        assert list(dict.fromkeys(row["method"] for row in rows(text))) == [
            "standard",
            "mdprop",
            "mdprop@multi_target",
        ]
    found = {(r["method"], r["input_set"], r["metric"]): r for r in rows(table_csv(summary, THREATS))}
    row = found["mdprop@multi_target", "clean", "recall_at_1"]
    standard = found["standard", "clean", "recall_at_1"]
    assert float(row["ratio"]) == pytest.approx(float(row["mean"]) / float(standard["mean"]), abs=1e-4)


def test_table_has_a_row_a_metric_against_standard() -> None:
    found = rows(table_csv(aggregate(make_rows(seeds=(0, 1))), THREATS))
    header = "method input_set goal norm units epsilon metric mean std n low high difference ratio"
    assert list(found[0]) == header.split()
    by_key = {(row["method"], row["input_set"], row["metric"]): row for row in found}
    count = sum(len(metrics) for metrics in make_metrics("at", 0).values())
    assert len(by_key) == len(found) == count * len(METHODS)
    row = by_key["mdprop", "multi_target_large", "recall_at_1"]
    standard = by_key["standard", "multi_target_large", "recall_at_1"]
    assert (row["goal"], row["norm"], row["units"]) == ("multi_target", "linf", "pixel")
    assert (row["epsilon"], row["n"]) == ("0.2", "2")
    assert float(row["difference"]) == pytest.approx(float(row["mean"]) - float(standard["mean"]), abs=2e-6)
    assert float(row["ratio"]) == pytest.approx(float(row["mean"]) / float(standard["mean"]), abs=1e-4)
    assert float(row["std"]) > 0
    assert float(by_key["mdprop", "multi_target_large", "approach"]["mean"]) == pytest.approx(0.8)


def test_recall_at_1_has_the_ends_of_its_interval() -> None:
    summary = aggregate(make_rows(["standard", "at"]))
    intervals = Intervals({"at": {"clean": Interval(0.7, 0.6125, 0.78)}})
    found = rows(table_csv(summary, THREATS, intervals))
    ends = {(r["method"], r["input_set"], r["metric"]): (r["low"], r["high"]) for r in found if r["low"]}
    assert ends == {("at", "clean", "recall_at_1"): ("0.6125", "0.78")}


def test_missing_values_are_empty() -> None:
    summary = aggregate(
        {
            "at": {0: {"clean": {"recall_at_1": 0.5}, "untargeted": {"recall_at_1": None}}},
            "mdprop": {0: {"clean": {"recall_at_2": 0.6}}},
        }
    )
    assert recall_csv(summary) == "method,k,recall\nat,1,0.5\nat,2,\nmdprop,1,\nmdprop,2,0.6\n"
    assert "at,untargeted,,,,,recall_at_1,,,1,,,,\n" in table_csv(summary, {})
