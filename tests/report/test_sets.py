"""The order of input sets, and what tells them apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mdprop.attacks.threat import Threat
from mdprop.report.sets import families, input_sets


def threat(epsilon: float = 0.1, goal: str = "single_target", **means: Any) -> Threat:
    return Threat(goal=goal, epsilon=epsilon, **means)


def titles(threats: Mapping[str, Threat], *unknown: str) -> list[str]:
    summary: dict[str, dict[str, Any]] = {"at": {name: {} for name in (*unknown, *threats)}}
    return [s.title for s in input_sets(summary, threats)]


def test_clean_then_goal_by_goal_with_growing_epsilon_whatever_their_names() -> None:
    threats = {
        "zebra": threat(0.1, "multi_target"),
        "night": threat(0.2),
        "a": threat(0.1, "unadversarial"),
        "single_target_x": threat(0.3, "untargeted"),
        "morning": threat(0.01),
    }
    summary: dict[str, dict[str, Any]] = {"at": {n: {} for n in ("other", "clean", *threats, "another")}}
    found = input_sets(summary, threats)
    names = ["clean", "morning", "night", "zebra", "single_target_x", "a", "other", "another"]
    assert [s.name for s in found] == names
    assert [s.title for s in found] == [
        "clean",
        "single-targeted ε 0.01",
        "single-targeted ε 0.2",
        "multi-targeted ε 0.1",
        "untargeted ε 0.3",
        "unadversarial ε 0.1",
        "other",
        "another",
    ]
    assert [s.epsilon for s in found] == [0.0, 0.01, 0.2, 0.1, 0.3, 0.1, None, None]


def test_a_threat_without_a_result_is_no_set() -> None:
    assert input_sets({"at": {"clean": {}}}, {"night": threat()})[-1].name == "clean"


def test_sets_without_a_known_attack_keep_their_names() -> None:
    assert titles({}, "clean", "single_target_middle", "worst_case") == [
        "clean",
        "worst case",
        "single target middle",
    ]


def test_the_worst_case_comes_right_after_clean() -> None:
    threats = {"night": threat(), "day": threat(0.2)}
    assert titles(threats, "other", "worst_case", "clean") == [
        "clean",
        "worst case",
        "single-targeted ε 0.1",
        "single-targeted ε 0.2",
        "other",
    ]


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ({"steps": 50}, ("steps 10", "steps 50")),
        ({"restarts": 5}, ("restarts 1", "restarts 5")),
        ({"step_ratio": 0.25}, ("step ratio default", "step ratio 0.25")),
        ({"steps": 50, "restarts": 5}, ("steps 10, restarts 1", "steps 50, restarts 5")),
    ],
)
def test_two_sets_of_one_goal_and_epsilon(means: dict[str, Any], expected: tuple[str, str]) -> None:
    threats = {"a": threat(), "b": threat(**means), "c": threat(0.2, **means)}
    assert titles(threats) == [
        f"single-targeted ε 0.1, {expected[0]}",
        f"single-targeted ε 0.1, {expected[1]}",
        "single-targeted ε 0.2",
    ]


def test_what_is_attacked_elsewhere_says_where() -> None:
    threats = {"a": threat(), "b": threat(branch="all"), "c": threat(source="at/0", branch="x", steps=50)}
    assert titles(threats) == [
        "single-targeted ε 0.1, steps 10",
        "single-targeted ε 0.1, steps 10, through all",
        "single-targeted ε 0.1, steps 50, through x, from at/0",
    ]
    assert titles({"a": threat(), "b": threat(source="at/0")}) == [
        "single-targeted ε 0.1",
        "single-targeted ε 0.1, from at/0",
    ]


def test_twice_the_same_attack_goes_by_name() -> None:
    assert titles({"b": threat(), "a": threat()}) == ["single-targeted ε 0.1, a", "single-targeted ε 0.1, b"]


def test_targets_tell_apart_only_where_the_goal_looks_at_them() -> None:
    single = {"a": threat(targets=3), "b": threat(targets=4)}
    assert titles(single) == ["single-targeted ε 0.1, a", "single-targeted ε 0.1, b"]
    many = {name: threat(goal="multi_target", targets=t) for name, t in (("a", 3), ("b", 4))}
    assert titles(many) == ["multi-targeted ε 0.1, targets 3", "multi-targeted ε 0.1, targets 4"]


def test_l2_radii_are_shown_as_such_after_the_others() -> None:
    threats = {"b": threat(0.5, norm="l2"), "a": threat(0.5), "c": threat(0.6)}
    assert titles(threats) == ["single-targeted ε 0.5", "single-targeted ε 0.6", "single-targeted ℓ2 0.5"]


def test_units_are_named_where_they_differ() -> None:
    threats = {"a": threat(0.1), "b": threat(0.1, units="normalized")}
    assert titles(threats) == ["single-targeted ε 0.1 pixel", "single-targeted ε 0.1 normalized"]
    assert titles({"b": threats["b"]}) == ["single-targeted ε 0.1"]


def test_families_are_sets_that_differ_in_epsilon_only() -> None:
    threats = {
        "far": threat(0.2),
        "near": threat(0.1),
        "strong": threat(0.1, steps=50),
        "round": threat(1.0, norm="l2"),
        "away": threat(0.1, "untargeted"),
    }
    summary: dict[str, dict[str, Any]] = {"at": {name: {} for name in ("clean", *threats, "other")}}
    found = families(input_sets(summary, threats))
    assert [(f.title, [s.name for s in f.sets]) for f in found] == [
        ("single-targeted, ℓ∞, steps 10", ["near", "far"]),
        ("single-targeted, ℓ∞, steps 50", ["strong"]),
        ("single-targeted, ℓ2, steps 10", ["round"]),
        ("untargeted", ["away"]),
    ]
    assert families(input_sets(summary, {})) == []
