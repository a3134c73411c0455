from __future__ import annotations

import pytest

from mdprop.report.aggregate import aggregate
from mdprop.report.confidence import Comparison, Intervals
from mdprop.report.sets import input_sets
from mdprop.report.verdict import leader, main_rows, verdicts
from mdprop.statistics import Interval
from tests.report.synthetic import THREATS, make_rows, summary_of


def compared(difference: float, half: float, ratio: float | None = None) -> Comparison:
    known = Interval(ratio, ratio - 0.1, ratio + 0.1) if ratio else None
    return Comparison(Interval(difference, difference - half, difference + half), known)


def against_standard(**sets: Comparison) -> Intervals:
    return Intervals({}, {"standard": {"mdprop": sets}})


def test_it_says_what_differs_beyond_its_interval_and_what_does_not() -> None:
    summary = summary_of(standard=(0.8, 0.2), mdprop=(0.79, 0.4))
    intervals = against_standard(
        clean=compared(-0.01, 0.02),
        worst_case=compared(-0.15, 0.05, 0.4),
        single_target_middle=compared(0.2, 0.05, 2.0),
    )
    (verdict,) = verdicts(summary, input_sets(summary, THREATS), intervals)["standard"]
    assert verdict.row == "mdprop"
    assert [(phrase.kind, phrase.text) for phrase in verdict.phrases] == [
        ("same", "clean images: no difference beyond the interval, -1.0 points (-3.0 to +1.0)"),
        ("lower", "worst case: lower by 15.0 points (-20.0 to -10.0), ×0.40"),
        ("higher", "sets under attack: higher on 1 of 1"),
    ]


@pytest.mark.parametrize(
    ("differences", "kind", "text"),
    [
        ((0.2, -0.2, 0.0), "both", "higher on 1 and lower on 1 of 3"),
        ((0.0, 0.0, 0.0), "same", "no difference on any of 3"),
        ((-0.2, -0.2, 0.0), "lower", "lower on 2 of 3"),
    ],
)
def test_sets_under_attack_are_counted(differences: tuple[float, ...], kind: str, text: str) -> None:
    names = [f"multi_target_{size}" for size in ("small", "middle", "large")]
    summary = aggregate(make_rows(["standard", "mdprop"]))
    found = {name: compared(d, 0.1) for name, d in zip(names, differences, strict=True)}
    found["unadversarial_middle"] = compared(0.5, 0.1)  # helps, so it does not count
    ((verdict,),) = verdicts(summary, input_sets(summary, THREATS), against_standard(**found)).values()
    (phrase,) = verdict.phrases
    assert (phrase.kind, phrase.text) == (kind, f"sets under attack: {text}")


def test_the_leader_is_the_row_with_the_highest_worst_case() -> None:
    stat = {"mean": 0.3, "std": 0.0, "n": 1}
    summary = {
        "standard": {"worst_case": {"recall_at_1": {**stat, "mean": 0.1}}},
        "at": {"worst_case": {"recall_at_1": stat}},
        "at@near": {"worst_case": {"recall_at_1": {**stat, "mean": 0.9}}},  # not the main row of its method
    }
    known = Intervals({"at": {"worst_case": Interval(0.3, 0.25, 0.35)}})
    expected = (
        "at has the highest worst case: right under every attack for 30.0 % (25.0–35.0) of the queries."
    )
    assert leader(summary, known) == expected
    assert (
        leader({"at": summary["at"]}, Intervals())
        == "at is right under every attack for 30.0 % of the queries."
    )
    assert leader(summary_of(standard=(0.8, 0.2)), known) is None


def test_a_method_without_a_clean_row_goes_by_those_that_it_has() -> None:
    summary = {"standard": {}, "at": {}, "at@near": {}, "mdprop@far": {}}
    assert main_rows(summary) == ["standard", "at", "mdprop@far"]
