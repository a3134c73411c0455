"""The Empirical Robustness Score against published rows, and the flag beside it."""

from __future__ import annotations

import numpy as np
import pytest

from mdprop.attacks import Threat
from mdprop.robustness.score import RANGES, empirical_robustness_score, is_collapsed, score_of, spread

# RobRank's tables: CA+, CA-, QA+, QA-, TMA, ESD, ESR, LTM, GTM, GTT and the score.
PUBLISHED = {
    "CUB none": (0.0, 100, 0.0, 99.9, 0.883, 1.762, 0.0, 0.0, 14.1, 0.0, 3.8),
    "CUB ACT η32": (15.5, 37.7, 15.1, 32.2, 0.472, 0.821, 11.1, 9.4, 14.9, 1.0, 33.9),
    "CUB HM&ICS η32": (15.5, 37.7, 16.6, 30.9, 0.753, 0.506, 17.9, 16.7, 27.3, 2.9, 36.0),
    "CARS none": (0.2, 100, 0.1, 99.6, 0.874, 1.816, 0.0, 0.0, 13.4, 0.0, 3.6),
    "CARS HM&ICS η8": (21.0, 23.3, 23.1, 22.2, 0.698, 0.415, 31.2, 38.0, 47.8, 9.6, 47.9),
    "SOP none": (0.1, 99.3, 0.2, 99.1, 0.845, 1.685, 0.0, 0.0, 6.3, 0.0, 4.0),
    "SOP HM η32": (30.6, 4.7, 31.2, 3.5, 0.466, 0.266, 38.6, 40.3, 38.6, 44.3, 61.8),
}
PARTS = dict(zip(RANGES, PUBLISHED["CUB ACT η32"], strict=False))


@pytest.mark.parametrize("row", PUBLISHED)
def test_published_rows_give_the_published_score(row: str) -> None:
    *parts, score = PUBLISHED[row]
    found = empirical_robustness_score(dict(zip(RANGES, parts, strict=True)))
    assert found == pytest.approx(score, abs=0.1)


def test_the_order_of_the_parts_does_not_matter() -> None:
    assert empirical_robustness_score(dict(reversed(PARTS.items()))) == empirical_robustness_score(PARTS)


def test_an_attack_without_effect_and_one_that_does_all() -> None:
    best = dict.fromkeys(RANGES, 100.0) | {"ca_plus": 50, "ca_minus": 0, "qa_plus": 50, "qa_minus": 0}
    assert empirical_robustness_score(best | {"tma": 0, "esd": 0}) == 100
    worst = dict.fromkeys(RANGES, 0.0) | {"ca_minus": 100, "qa_minus": 100, "tma": 1, "esd": 2}
    assert empirical_robustness_score(worst) == 0


def test_parts_that_are_missing_or_unknown_are_named() -> None:
    wrong = {name: value for name, value in PARTS.items() if name != "gtt"} | {"recall": 1.0}
    with pytest.raises(
        ValueError, match=r"^the parts of .* are ca_plus, .*, gtt; missing gtt; unknown recall$"
    ):
        empirical_robustness_score(wrong)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ca_plus", 100.5, "ca_plus must be from 0 to 100, not 100.5"),
        ("ltm", -1.0, "ltm must be from 0 to 100, not -1.0"),
        ("tma", 1.1, "tma must be from -1 to 1, not 1.1"),
        ("esd", 2.1, "esd must be from 0 to 2, not 2.1"),
        ("gtt", float("nan"), "gtt must be from 0 to 100, not nan"),
    ],
)
def test_parts_out_of_range_are_refused(name: str, value: float, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}$"):
        empirical_robustness_score(PARTS | {name: value})


def test_rounding_of_single_precision_is_let_pass() -> None:
    assert empirical_robustness_score(PARTS | {"tma": 1 + 1e-6, "esd": 2 + 1e-6}) > 0


def cone(width: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.normal(size=32) + width * rng.normal(size=(300, 32))).astype(np.float32)


def test_the_spread_is_that_of_a_plain_loop() -> None:
    images = cone(1.0)[:20]
    images[3] = 0
    total = []
    for i in range(20):
        for j in range(20):
            if i != j:
                lengths = max(float(np.linalg.norm(images[i]) * np.linalg.norm(images[j])), 1e-12)
                total.append(1 - float(images[i] @ images[j]) / lengths)
    assert spread(images) == pytest.approx(np.mean(total), abs=1e-6)


@pytest.mark.parametrize(
    ("width", "collapsed"), [(0.0, True), (0.01, True), (0.1, True), (0.2, False), (5, False)]
)
def test_a_network_is_collapsed_where_all_images_are_alike(width: float, collapsed: bool) -> None:
    assert is_collapsed(cone(width)) is collapsed


def test_the_flag_goes_up_at_a_distance_of_a_fifth() -> None:
    # Two images at an angle a: the squared distance is 2 (1 - cos a), 0.04 at the edge.
    for distance, collapsed in ((0.199, True), (0.201, False)):
        angle = 2 * np.arcsin(distance / 2)
        assert is_collapsed([[1.0, 0.0], [np.cos(angle), np.sin(angle)]]) is collapsed


def test_one_image_has_no_spread() -> None:
    with pytest.raises(ValueError, match=r"^the spread of embeddings needs two images, not 1$"):
        is_collapsed([[1.0, 0.0]])


def test_the_score_of_a_model_is_that_of_its_sets() -> None:
    parts = dict(zip(RANGES, (10.0, 40.0, 12.0, 35.0, 0.5, 0.8, 11.0, 9.0, 15.0, 1.0), strict=True))
    goals = ("ca_plus", "ca_minus", "qa_plus", "qa_minus", "tma", "es", "ltm", "gtm", "gtt")
    threats = {f"my_{goal}": Threat(goal=goal, epsilon=0.1) for goal in goals}
    metrics: dict[str, dict[str, float]] = {"clean": {"recall_at_1": 0.6}}
    metrics |= {f"my_{name}": {"rank_percent": parts[name]} for name in goals[:4]}
    metrics |= {f"my_{name}": {"recall_at_1": parts[name] / 100} for name in ("ltm", "gtm")}
    metrics["my_tma"] = {"target_cosine": 0.5}
    metrics["my_es"] = {"shift": 0.8, "recall_at_1": 0.11}
    metrics["my_gtt"] = {"kept": 0.01}
    found = score_of(metrics, threats)
    assert found["empirical_robustness_score"] == pytest.approx(empirical_robustness_score(parts))
    assert found["recall_at_1"] == 0.6
    assert {name: found[name] for name in parts} == pytest.approx(parts)
    del threats["my_gtt"]
    assert score_of(metrics, threats) == {}
