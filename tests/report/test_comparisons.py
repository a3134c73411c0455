from __future__ import annotations

import math

import pytest

from mdprop.report.aggregate import Stat, aggregate
from mdprop.report.comparisons import (
    compare,
    comparison,
    interval_note,
    number,
    percent,
    short_span,
    span,
    spread_note,
)
from mdprop.statistics import Interval
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
    assert number(Stat(mean=0.789, std=0.0041, n=3), decimals=3, spread=False) == "0.789"


@pytest.mark.parametrize(
    ("low", "high", "long", "short"),
    [
        (0.8123, 0.8491, "81.2–84.9", "81–85"),
        (0.8123, 0.8191, "81.2–81.9", "81.2–81.9"),
        (0.0, 0.0368, "0.0–3.7", "0.0–3.7"),
        (0.92, 1.0, "92.0–100.0", "92–100"),
    ],
)
def test_spans(low: float, high: float, long: str, short: str) -> None:
    interval = Interval((low + high) / 2, low, high)
    assert (span(interval), short_span(interval)) == (long, short)


def test_spans_of_differences_and_ratios() -> None:
    assert span(Interval(0.0, -0.0123, 0.0299), signed=True) == "-1.2 to +3.0"
    assert span(Interval(0.0, -0.0001, 0.02), signed=True) == "+0.0 to +2.0"
    assert span(Interval(2.0, 1.234, math.inf), decimals=2, scale=1) == "1.23–∞"


def test_interval_note() -> None:
    assert interval_note(aggregate(make_rows())).startswith("over queries, as if")
    assert interval_note(aggregate(make_rows(seeds=(0, 1)))).startswith(
        "over seeds, by Student's t, or, where"
    )


def test_spread_note() -> None:
    assert spread_note(aggregate(make_rows())) == "one seed"
    assert spread_note(aggregate(make_rows(seeds=(0, 1, 2)))).endswith("over 3 seeds")
    rows = make_rows(seeds=(0, 1, 2))
    del rows["at"][2]["clean"]
    assert spread_note(aggregate(rows)).endswith("over 2 to 3 seeds")
