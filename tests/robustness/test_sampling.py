from __future__ import annotations

import numpy as np
import pytest

from mdprop.robustness.sampling import drawn_rows, is_measurable, sample_rows, with_partner

LABELS = np.repeat(np.arange(20), np.arange(1, 21))


@pytest.mark.parametrize("queries", [1, 10, 60, 200])
@pytest.mark.parametrize("seed", [0, 1])
def test_whole_classes_until_there_are_enough(queries: int, seed: int) -> None:
    rows = drawn_rows(LABELS, queries, seed, "classes")
    drawn, counts = np.unique(LABELS[rows], return_counts=True)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert counts.tolist() == [label + 1 for label in drawn]  # all of each
    # The last class drawn was needed: without it there were too few.
    assert queries <= len(rows) < queries + 20
    assert rows.tolist() == drawn_rows(LABELS, queries, seed, "classes").tolist()


def test_another_seed_draws_other_classes() -> None:
    assert drawn_rows(LABELS, 60, 0, "classes").tolist() != drawn_rows(LABELS, 60, 1, "classes").tolist()


@pytest.mark.parametrize("draw", ["images", "classes"])
@pytest.mark.parametrize("queries", [0, len(LABELS), 10**6])
def test_all_rows(queries: int, draw: str) -> None:
    assert drawn_rows(LABELS, queries, 3, draw).tolist() == list(range(len(LABELS)))  # type: ignore[arg-type]


def test_images_are_drawn_as_ever() -> None:
    assert drawn_rows(LABELS, 50, 3).tolist() == sample_rows(len(LABELS), 50, 3).tolist()


def test_who_has_a_partner() -> None:
    assert with_partner(np.array([5, 2, 5, 9, 2, 7])).tolist() == [True, True, True, False, True, False]
    assert with_partner(np.array([], dtype=np.int64)).tolist() == []


@pytest.mark.parametrize(
    ("labels", "measurable"),
    [
        ([0, 0, 1, 1], True),
        ([0, 0, 1], False),
        ([0, 0, 0], False),
        ([0, 1, 2], False),
        ([1, 0, 1, 0, 2], True),
    ],
)
def test_two_classes_with_partners_are_needed(labels: list[int], measurable: bool) -> None:
    assert is_measurable(np.array(labels)) == measurable
