"""Hardest classes, branch matrices, targets, the trade between clean and attacked images, provenance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mdprop.attacks.threat import Threat
from mdprop.errors import ResultError
from mdprop.files import sealed_json
from mdprop.methods import METHODS, Method, Slice
from mdprop.report.ablation import target_ablations
from mdprop.report.aggregate import Stat, Summary
from mdprop.report.classes import classes_csv, count_classes, hardest
from mdprop.report.confidence import Intervals
from mdprop.report.drawing import Point
from mdprop.report.figures import pareto_front, recall_plots, target_plots, trade_plot
from mdprop.report.intervals import Hits
from mdprop.report.matrix import OWN, branch_matrices
from mdprop.report.provenance import read_provenance
from mdprop.report.sets import InputSet, input_sets, levels
from mdprop.runs import Run
from mdprop.statistics import Interval


def hits(labels: list[int], found: list[int]) -> Hits:
    return Hits(np.arange(len(labels)), np.array(labels), np.array(found, dtype=bool))


RESULTS = {
    "at": {
        "worst_case": {0: hits([1, 1, 2, 3], [0, 1, 0, 1]), 1: hits([1, 1, 2, 3], [0, 0, 0, 1])},
        "clean": {0: hits([1, 2, 3], [1, 0, 1])},
    },
    "at@near": {"clean": {0: hits([1], [1])}},
}


def test_the_classes_that_are_found_least_come_first() -> None:
    counts = count_classes(RESULTS, ["at"])
    table = hardest(counts, {1: "one", 2: "two"})
    assert table is not None
    assert [(name, [c.text for c in cells]) for name, cells in table.rows] == [
        ("two", ["0 of 2", "0 of 1"]),
        ("one", ["1 of 4", "1 of 1"]),
        ("3", ["2 of 2", "1 of 1"]),
    ]
    assert list(table.groups) == [("worst case", 1), ("clean", 1)]
    assert classes_csv(counts, {1: "one"}).splitlines()[:2] == [
        "method,input_set,label,class,hits,queries",
        "at,worst_case,1,one,1,4",
    ]
    assert hardest({}, {}) is None


def recall(**sets: float) -> dict[str, dict[str, Stat]]:
    return {name: {"recall_at_1": Stat(mean=value, std=0.0, n=1)} for name, value in sets.items()}


BRANCHES = {
    "own": Threat(goal="untargeted", epsilon=0.1),
    "near": Threat(goal="untargeted", epsilon=0.1, branch="clean"),
    "far": Threat(goal="untargeted", epsilon=0.1, branch="far"),
    "other": Threat(goal="untargeted", epsilon=0.2, branch="far"),
    "transfer": Threat(goal="untargeted", epsilon=0.1, source="at/0"),
}
MATRIX: Summary = {
    "at": recall(own=0.1, near=0.1, transfer=0.5),
    "mdprop": recall(own=0.2, near=0.2, far=0.3, other=0.1, transfer=0.6),
    "mdprop@far": recall(own=0.4, near=0.5, far=0.4, other=0.1, transfer=0.6),
}


def test_the_matrix_has_attacked_branches_as_columns_and_answering_ones_as_rows() -> None:
    known = Intervals({"mdprop": {"far": Interval(0.3, 0.2, 0.4)}})
    (table,) = branch_matrices(MATRIX, input_sets(MATRIX, BRANCHES), known)
    assert table.caption == "mdprop, untargeted, ε 0.1: Recall@1 in %"
    columns = dict(zip(table.heads, zip(*(cells for _, cells in table.rows), strict=True), strict=True))
    found = {head: [(c.text, c.note) for c in cells] for head, cells in columns.items()}
    assert [row for row, _ in table.rows] == ["clean", "far"]
    assert found == {
        OWN: [("20.0", "white-box"), ("40.0", "white-box")],
        "clean": [("20.0", "white-box"), ("50.0", "")],
        "far": [("30.0", ""), ("40.0", "white-box")],
    }
    assert columns["far"][0].below == ("20.0–40.0",)


def test_one_answering_branch_makes_no_matrix() -> None:
    less = {"at": MATRIX["at"], "mdprop": MATRIX["mdprop"]}
    assert branch_matrices(less, input_sets(less, BRANCHES)) == []


def test_methods_that_differ_in_their_targets_only_are_an_ablation() -> None:
    part = {"goal": "multi_target", "share": "1"}
    methods = [
        Method.of(name, [Slice.model_validate(part | more)])
        for name, more in (
            ("t1", {"targets": 1}),
            ("t5", {}),
            ("again", {"targets": 5}),
            ("wide", {"epsilon": 0.1}),
        )
    ]
    assert target_ablations([*METHODS.values(), *methods], 5) == [{1: "t1", 5: "t5"}]
    assert target_ablations(methods[:2], 1) == []
    summary = {"t1": recall(clean=0.8, worst_case=0.2), "t5": recall(clean=0.9, worst_case=0.3)}
    (plot,) = target_plots(summary, [{5: "t5", 1: "t1"}])
    assert plot.title == "Recall@1 by targets T: t1, t5"
    assert "clean: 80 at 1, 90 at 5; worst case: 20 at 1, 30 at 5." in plot.alt


def test_sets_of_several_steps_make_a_curve_and_single_radii_none() -> None:
    threats = {f"s{steps}": Threat(goal="untargeted", epsilon=0.1, steps=steps) for steps in (40, 5)}
    summary = {"at": recall(clean=0.9, s5=0.5, s40=0.2)}
    (plot,) = recall_plots(summary, input_sets(summary, threats))
    assert plot.title == "Recall@1 by steps: untargeted, ε 0.1"
    assert "at: 50 at 5, 20 at 40." in plot.alt
    assert plot.csv.splitlines() == ["row,steps,Recall@1 (%)", "at,5.0,50.0", "at,40.0,20.0"]


def test_no_row_beats_the_front_in_both() -> None:
    points = {"a": Point(1, 9), "b": Point(5, 5), "c": Point(4, 5), "d": Point(9, 1), "e": Point(9, 1)}
    assert pareto_front(points) == ["a", "b", "d", "e"]


def test_the_trade_has_bars_both_ways() -> None:
    summary = {"at": recall(clean=0.8, worst_case=0.2), "standard": recall(clean=0.9)}
    known = Intervals({"at": {"clean": Interval(0.8, 0.7, 0.85), "worst_case": Interval(0.2, 0.1, 0.3)}})
    plot = trade_plot(summary, known)
    assert plot is not None
    assert plot.csv.splitlines()[1] == "at,80.0,20.0,10.0,30.0,70.0,85.0"
    assert "Better than these in both is none: at." in plot.alt
    assert trade_plot({"standard": recall(clean=0.9)}) is None


@pytest.mark.parametrize(
    ("threat", "std", "expected"),
    [
        (Threat(goal="untargeted", epsilon=4 / 255), [0.2, 0.3], "4/255"),
        (Threat(goal="untargeted", epsilon=0.1, units="normalized"), [0.25, 0.25], "6.375/255"),
        (Threat(goal="untargeted", epsilon=0.1, units="normalized"), [0.2, 0.3], ""),
        (Threat(goal="untargeted", epsilon=0.5, norm="l2"), [0.25], ""),
        (None, [0.25], ""),
    ],
)
def test_radii_in_levels(threat: Threat | None, std: list[float], expected: str) -> None:
    assert levels(threat, std) == expected
    assert InputSet("a", threat).levels == ""


def test_provenance_is_said_once_where_runs_agree(tmp_path: Path) -> None:
    runs = [Run("at", 0, tmp_path), Run("at", 1, tmp_path)]
    for run, commit in zip(runs, ("aaa", "bbb"), strict=True):
        run.folder.mkdir(parents=True)
        made = {"provenance": {"commit": commit, "torch": "2.4"}}
        (run.folder / "model.json").write_text(sealed_json(made))
    assert read_provenance(runs) == {"commit": "aaa (at/0); bbb (at/1)", "torch": "2.4"}
    (runs[1].folder / "model.json").write_text(sealed_json({}))
    with pytest.raises(ResultError, match=r"model\.json does not say what made it: delete it and run"):
        read_provenance(runs)


def test_the_numbers_of_a_plot_are_words_that_a_page_can_hold() -> None:
    summary = {'a"<b>&': recall(clean=0.8, worst_case=0.2)}
    plot = trade_plot(json.loads(json.dumps(summary)))
    assert plot is not None
    assert 'aria-label="' in plot.svg and "a&quot;&lt;b&gt;&amp;: 80 clean" in plot.svg
