from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from mdprop.attacks.threat import Threat
from mdprop.report.aggregate import Summary, aggregate, collect
from mdprop.report.confidence import Comparison, Intervals
from mdprop.report.terminal import terminal_table
from mdprop.statistics import Interval
from tests.report.synthetic import METHODS, THREATS, make_rows, runs_of, summary_of, write_runs

PAIR = {
    "standard": {"clean": {"recall_at_1": 0.8}, "single_target_middle": {"recall_at_1": 0.2}},
    "mdprop": {"clean": {"recall_at_1": 0.816}, "single_target_middle": {"recall_at_1": 0.424}},
}


def line_of(text: str, method: str) -> list[str]:
    return next(line.split() for line in text.split("\n") if line.split()[:1] == [method])


def heads(text: str) -> str:
    return text.split("─")[0]


def intervals_of(methods: Sequence[str]) -> Intervals:
    """The same of all methods and input sets; all differ from standard but on clean images."""
    names = ["clean", "worst_case", *THREATS]
    same, other = (Comparison(Interval(0.05, low, 0.1), None) for low in (-0.01, 0.01))
    compared = {name: same if name == "clean" else other for name in names}
    return Intervals(
        {method: {name: Interval(0.5, 0.454, 0.546) for name in names} for method in methods},
        {"standard": {method: compared for method in methods if method != "standard"}},
    )


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_default_table_is_one_block_of_100_columns(seeds: tuple[int, ...]) -> None:
    text = terminal_table(aggregate(make_rows(seeds=seeds)), THREATS, intervals=intervals_of(METHODS))
    assert max(map(len, text.split("\n"))) <= 100
    assert text.count("─\n") == 1
    assert "\x1b" not in text
    assert "…" not in text
    assert heads(text).count("ε 0.1 ") + heads(text).count("ε 0.1\n") == 4
    assert "ε in pixels of [0, 1]." in text
    assert ("mean over 3 seeds." in text) == (len(seeds) > 1)


def test_heads_split_at_hyphens_and_line_up() -> None:
    threats = {
        "brief": Threat(goal="single_target", epsilon=0.1),
        "long": Threat(goal="single_target", epsilon=0.1, steps=50),
        "away": Threat(goal="untargeted", epsilon=0.1),
    }
    lines = terminal_table(aggregate(make_rows(threats=threats)), threats).split("\n")
    assert [line.split() for line in lines[:4]] == [
        ["clean", "worst", "single-", "single-", "untargeted"],
        ["case", "targeted", "targeted"],
        ["ε", "0.1", "ε", "0.1", "ε", "0.1"],
        ["method", "steps", "10", "steps", "50"],
    ]


def test_rows_hold_numbers_and_comparisons() -> None:
    text = terminal_table(summary_of(standard=(0.8, 0.2), mdprop=(0.816, 0.424)), THREATS)
    assert line_of(text, "standard") == ["standard", "80.0", "20.0"]
    assert line_of(text, "mdprop") == ["mdprop", "81.6", "42.4"]
    assert line_of(text, "+1.6") == ["+1.6", "x2.12"]
    assert "interval" not in text


def test_intervals_stand_in_place_of_the_spread_and_marks_where_they_tell() -> None:
    summary = aggregate({m: {0: v, 1: v} for m, v in PAIR.items()})
    intervals = intervals_of(list(PAIR))
    lines = terminal_table(summary, THREATS, intervals=intervals).split("\n")
    assert [line.split() for line in lines[4:10]] == [
        ["standard", "80.0", "20.0"],
        ["45–55", "45–55"],
        [],
        ["mdprop", "81.6", "42.4"],
        ["45–55", "45–55"],
        ["+1.6", "x2.12*"],
    ]
    legend = " ".join(" ".join(lines).partition("Recall@1 in %")[2].split())
    assert legend == (
        ", mean over 2 seeds. ε in pixels of [0, 1]. "
        "Second line: interval of 95 %, over seeds, by Student's t, or, where these all agree, over queries, "
        "as if other classes had been drawn. Each stands alone. "
        "Third line, against standard: difference in points (clean), ratio (attacked); *: they differ beyond "
        "the interval of 95 % of their difference."
    )


def test_a_row_without_an_interval_keeps_the_lines_of_the_others() -> None:
    text = terminal_table(aggregate(make_rows()), THREATS, intervals=intervals_of(["standard"]))
    lines = text.split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith("mdprop"))
    assert lines[at + 1] == ""
    assert lines[at + 2].split()[1].startswith("x")


def test_the_worst_case_is_the_number_to_quote() -> None:
    text = terminal_table(aggregate(make_rows()), THREATS)
    assert heads(text).split()[:2] == ["clean", "worst"]
    assert "Worst case: right under every attack; the number to quote." in text


def test_branches_are_rows_with_a_note(folder: Path) -> None:
    runs = runs_of(["standard", "mdprop"])
    mixture = "clean+25%multi_target"
    write_runs(runs, {"mdprop": ["clean", "multi_target", mixture]})
    text = terminal_table(aggregate(collect(runs)), THREATS)
    rows = [line.split()[0] for line in text.split("\n") if line.startswith(("standard", "mdprop"))]
    assert list(dict.fromkeys(rows)) == ["standard", "mdprop", "mdprop@multi_target", f"mdprop@{mixture}"]
    assert "A row method@branch answers, and is attacked, through that batch-norm branch." in text
    assert max(map(len, text.split("\n"))) <= 100
    assert "method@branch" not in terminal_table(aggregate(make_rows()), THREATS)


@pytest.mark.parametrize("width", [50, 20])
def test_a_narrow_terminal_gets_more_blocks(width: int) -> None:
    summary = aggregate(make_rows())
    text = terminal_table(summary, THREATS, width)
    assert max(map(len, text.split("\n"))) <= max(width, len("standard unadversarial"))
    assert text.count("─\n") > 1
    assert "…" not in text
    wide = terminal_table(summary, THREATS)
    assert sorted(w for w in text.split() if w.startswith("x")) == sorted(
        w for w in wide.split() if w.startswith("x")
    )


def test_a_subset_of_methods_and_no_standard() -> None:
    text = terminal_table(aggregate(make_rows(["at", "mdprop"])), THREATS)
    assert "No comparison: standard is not among the methods." in text
    assert " x" not in text


@pytest.mark.parametrize(
    ("threats", "expected"),
    [
        ({"a": {"epsilon": 0.1}}, "ε in pixels of [0, 1]."),
        ({"a": {"epsilon": 0.1, "units": "normalized"}}, "ε in standard deviations of a channel."),
        ({"a": {"epsilon": 0.5, "norm": "l2"}}, "ℓ2 in pixels of [0, 1]."),
        ({"a": {"epsilon": 0.5, "norm": "l2"}, "b": {"epsilon": 0.1}}, "ε and ℓ2 in pixels of [0, 1]."),
        (
            {"a": {"epsilon": 0.1, "units": "normalized"}, "b": {"epsilon": 0.1}},
            "ε, pixel: in pixels of [0, 1]. ε, normalized: in standard deviations of a channel.",
        ),
        ({}, ""),
    ],
)
def test_the_legend_says_what_radii_are_in(threats: dict[str, dict[str, object]], expected: str) -> None:
    known = {n: Threat.model_validate({"goal": "single_target", **means}) for n, means in threats.items()}
    rows = make_rows(threats=known or THREATS)
    summary = aggregate(
        {m: {0: {n: v for n, v in by_seed[0].items() if n != "worst_case"}} for m, by_seed in rows.items()}
    )
    text = " ".join(terminal_table(summary, known).split())
    legend = text.partition("one seed.")[2].partition("Second line")[0].strip()
    assert legend == expected


def test_sets_without_a_known_attack_go_by_their_names() -> None:
    text = terminal_table(summary_of(standard=(0.8, 0.2)), {})
    assert heads(text).split() == ["clean", "single", "target", "middle", "method"]
    assert "ε" not in text


def test_missing_values_are_dashes() -> None:
    summary: Summary = summary_of(standard=(0.8, None), mdprop=(None, 0.4))
    text = terminal_table(summary, THREATS)
    assert line_of(text, "standard") == ["standard", "80.0", "–"]
    assert line_of(text, "mdprop") == ["mdprop", "–", "40.0"]


def test_numbers_of_validation_classes_are_called_so() -> None:
    summary = aggregate(make_rows())
    assert "validation" not in terminal_table(summary, THREATS)
    said = terminal_table(summary, THREATS, evaluated="validation").splitlines()[-1]
    assert said == "These are validation classes (dataset.evaluate): no number is one of test classes."
