from __future__ import annotations

from pathlib import Path

import pytest

from mdprop.attacks.threat import Threat
from mdprop.report.aggregate import Summary, aggregate, collect
from mdprop.report.terminal import terminal_table
from tests.report.synthetic import METHODS, THREATS, make_rows, runs_of, summary_of, write_runs


def line_of(text: str, method: str) -> list[str]:
    return next(line.split() for line in text.split("\n") if line.split()[:1] == [method])


def heads(text: str) -> str:
    return text.split("─")[0]


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_default_table_is_one_block_of_100_columns(seeds: tuple[int, ...]) -> None:
    text = terminal_table(aggregate(make_rows((*METHODS, "mdprop_unadv"), seeds)), THREATS)
    assert max(map(len, text.split("\n"))) <= 100
    assert text.count("─\n") == 1
    assert "\x1b" not in text
    assert "…" not in text
    assert heads(text).count("ε 0.1 ") + heads(text).count("ε 0.1\n") == 4
    assert "ε in pixels of [0, 1]." in text
    assert ("±" in text.split("Recall@1 in %")[0]) == (len(seeds) > 1)


def test_heads_split_at_hyphens_and_line_up() -> None:
    threats = {
        "brief": Threat(goal="single_target", epsilon=0.1),
        "long": Threat(goal="single_target", epsilon=0.1, steps=50),
        "away": Threat(goal="untargeted", epsilon=0.1),
    }
    lines = terminal_table(aggregate(make_rows(threats=threats)), threats).split("\n")
    assert [line.split() for line in lines[:4]] == [
        ["clean", "single-", "single-", "untargeted"],
        ["targeted", "targeted"],
        ["ε", "0.1", "ε", "0.1", "ε", "0.1"],
        ["method", "steps", "10", "steps", "50"],
    ]


def test_rows_hold_numbers_and_comparisons() -> None:
    text = terminal_table(summary_of(standard=(0.8, 0.2), mdprop=(0.816, 0.424)), THREATS)
    assert line_of(text, "standard") == ["standard", "80.0", "20.0"]
    assert line_of(text, "mdprop") == ["mdprop", "81.6", "42.4"]
    assert line_of(text, "+1.6") == ["+1.6", "x2.12"]


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
    summary = aggregate(make_rows(threats=known)) if known else aggregate(make_rows())
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
