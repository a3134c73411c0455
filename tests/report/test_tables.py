from __future__ import annotations

import pytest

from mdprop.report.aggregate import Stat, Summary, aggregate
from mdprop.report.tables import (
    InputSet,
    compare,
    comparison,
    input_sets,
    percent,
    spread_note,
    terminal_table,
)
from tests.report.synthetic import EPSILONS, METHODS, make_runs

CLEAN = InputSet("clean", None, 0.0)
MIDDLE = InputSet("single_target_middle", "single_target", 0.1)


def summary_of(**values: tuple[float | None, float | None]) -> Summary:
    """method=(clean, single_target_middle) Recall@1; None: missing."""
    return {
        method: {
            name: {"recall_at_1": Stat(mean=value, std=0.0, n=1)}
            for name, value in zip(("clean", "single_target_middle"), pair, strict=True)
            if value is not None
        }
        for method, pair in values.items()
    }


def test_input_sets_go_by_goal_and_epsilon() -> None:
    names = ["untargeted", "single_target_b", "clean", "multi_target_a", "single_target_a", "other"]
    summary = {"at": {name: {} for name in names}}
    epsilons = {"single_target_a": 0.2, "single_target_b": 0.01}
    found = input_sets(summary, epsilons)
    assert [s.name for s in found] == [
        "clean",
        "single_target_b",
        "single_target_a",
        "multi_target_a",
        "untargeted",
        "other",
    ]
    assert [s.title for s in found] == [
        "clean",
        "single-targeted ε 0.01",
        "single-targeted ε 0.2",
        "multi-targeted a",
        "untargeted",
        "other",
    ]


def test_compare_is_difference_and_ratio_of_means() -> None:
    summary = summary_of(standard=(0.8, 0.2), mdprop=(0.82, 0.424))
    assert compare(summary, "mdprop", "clean", "recall_at_1") == pytest.approx((0.02, 1.025))
    assert compare(summary, "mdprop", "single_target_middle", "recall_at_1") == pytest.approx((0.224, 2.12))
    assert compare(summary, "mdprop", "clean", "nmi") == (None, None)
    assert compare(summary, "advprop", "clean", "recall_at_1") == (None, None)


def test_comparison_texts() -> None:
    summary = summary_of(standard=(0.8, 0.2), mdprop=(0.816, 0.424), at=(0.79999, 0.1))
    assert comparison(summary, "mdprop", CLEAN) == "+1.6"
    assert comparison(summary, "mdprop", MIDDLE) == "x2.12"
    assert comparison(summary, "at", CLEAN) == "+0.0"
    assert comparison(summary, "at", MIDDLE) == "x0.50"
    assert comparison(summary, "standard", CLEAN) == ""


def test_a_ratio_to_zero_falls_back_to_points() -> None:
    summary = summary_of(standard=(0.8, 0.0), mdprop=(0.8, 0.123))
    assert compare(summary, "mdprop", MIDDLE.name, "recall_at_1") == (0.123, None)
    assert comparison(summary, "mdprop", MIDDLE) == "+12.3"


def test_percent() -> None:
    assert percent(Stat(mean=0.789, std=0.0, n=1)) == "78.9"
    assert percent(Stat(mean=0.789, std=0.0041, n=3)) == "78.9 ± 0.4"
    assert percent(Stat(mean=None, std=None, n=3)) == "–"
    assert percent(None) == "–"


def test_spread_note() -> None:
    assert spread_note(aggregate(make_runs())) == "one seed"
    assert spread_note(aggregate(make_runs(seeds=(0, 1, 2)))).endswith("over 3 seeds")
    runs = make_runs(seeds=(0, 1, 2))
    del runs["at"][2]["clean"]
    assert spread_note(aggregate(runs)).endswith("over 2 to 3 seeds")


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_default_table_is_one_block_of_100_columns(seeds: tuple[int, ...]) -> None:
    text = terminal_table(aggregate(make_runs((*METHODS, "mdprop_unadv"), seeds)), EPSILONS, "pixel")
    assert max(map(len, text.split("\n"))) <= 100
    assert text.count("─\n") == 1
    assert "\x1b" not in text
    assert "…" not in text
    assert text.count("ε 0.1 ") + text.count("ε 0.1\n") == 4
    assert "pixels of [0, 1]" in text
    assert ("±" in text.split("Recall@1 in %")[0]) == (len(seeds) > 1)


def test_rows_hold_numbers_and_comparisons() -> None:
    summary = summary_of(standard=(0.8, 0.2), mdprop=(0.816, 0.424))
    lines = terminal_table(summary, {"single_target_middle": 0.1}).split("\n")
    standard = next(i for i, line in enumerate(lines) if line.startswith("standard"))
    mdprop = next(i for i, line in enumerate(lines) if line.startswith("mdprop"))
    assert lines[standard].split() == ["standard", "80.0", "20.0"]
    assert lines[mdprop].split() == ["mdprop", "81.6", "42.4"]
    assert lines[mdprop + 1].split() == ["+1.6", "x2.12"]


def test_a_narrow_terminal_gets_more_blocks() -> None:
    summary = aggregate(make_runs())
    text = terminal_table(summary, EPSILONS, width=50)
    assert max(map(len, text.split("\n"))) <= 50
    assert text.count("─\n") > 1
    wide = terminal_table(summary, EPSILONS)
    assert sorted(w for w in text.split() if w.startswith("x")) == sorted(
        w for w in wide.split() if w.startswith("x")
    )


def test_without_standard_there_is_no_comparison() -> None:
    text = terminal_table(aggregate(make_runs(["at", "mdprop"])), EPSILONS)
    assert "No comparison: standard is not among the methods." in text
    assert " x" not in text


def test_missing_values_are_dashes() -> None:
    summary = summary_of(standard=(0.8, None), mdprop=(None, 0.4))
    lines = terminal_table(summary, {"single_target_middle": 0.1}).split("\n")
    assert next(line for line in lines if line.startswith("standard")).split() == ["standard", "80.0", "–"]
    assert next(line for line in lines if line.startswith("mdprop")).split() == ["mdprop", "–", "40.0"]
