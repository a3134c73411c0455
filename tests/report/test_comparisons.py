from __future__ import annotations

import pytest

from mdprop.report.aggregate import Stat, aggregate
from mdprop.report.comparisons import compare, comparison, number, percent, spread_note
from tests.report.synthetic import make_rows, summary_of


def test_compare_is_difference_and_ratio_of_means() -> None:
    summary = summary_of(standard=(0.8, 0.2), mdprop=(0.82, 0.424))
    assert compare(summary, "mdprop", "clean", "recall_at_1") == pytest.approx((0.02, 1.025))
    assert compare(summary, "mdprop", "single_target_middle", "recall_at_1") == pytest.approx((0.224, 2.12))
    assert compare(summary, "mdprop", "clean", "nmi") == (None, None)
    assert compare(summary, "advprop", "clean", "recall_at_1") == (None, None)


def test_comparison_texts() -> None:
    summary = summary_of(standard=(0.8, 0.2), mdprop=(0.816, 0.424), at=(0.79999, 0.1))
    assert comparison(summary, "mdprop", "clean") == "+1.6"
    assert comparison(summary, "mdprop", "single_target_middle") == "x2.12"
    assert comparison(summary, "at", "clean") == "+0.0"
    assert comparison(summary, "at", "single_target_middle") == "x0.50"
    assert comparison(summary, "standard", "clean") == ""


def test_a_ratio_to_zero_falls_back_to_points() -> None:
    summary = summary_of(standard=(0.8, 0.0), mdprop=(0.8, 0.123))
    assert compare(summary, "mdprop", "single_target_middle", "recall_at_1") == (0.123, None)
    assert comparison(summary, "mdprop", "single_target_middle") == "+12.3"


def test_numbers_in_words() -> None:
    assert percent(Stat(mean=0.789, std=0.0, n=1)) == "78.9"
    assert percent(Stat(mean=0.789, std=0.0041, n=3)) == "78.9 ± 0.4"
    assert percent(Stat(mean=None, std=None, n=3)) == "–"
    assert percent(None) == "–"
    assert number(Stat(mean=0.789, std=0.0041, n=3), decimals=3) == "0.789 ± 0.004"


def test_spread_note() -> None:
    assert spread_note(aggregate(make_rows())) == "one seed"
    assert spread_note(aggregate(make_rows(seeds=(0, 1, 2)))).endswith("over 3 seeds")
    rows = make_rows(seeds=(0, 1, 2))
    del rows["at"][2]["clean"]
    assert spread_note(aggregate(rows)).endswith("over 2 to 3 seeds")
