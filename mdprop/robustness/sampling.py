"""Which test images are attacked."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Draw = Literal["images", "classes"]
Rows = NDArray[np.int64]


def drawn_rows(labels: NDArray[np.int64], queries: int, seed: int, draw: Draw = "images") -> Rows:
    """A seeded sample of the rows with these labels [N], sorted: [Q].

    queries: how many rows; all of them where it is 0 or too many.
    draw: "images": any `queries` rows; "classes": all rows of as many classes as it takes to reach
        `queries`, so that each image that is not alone in its class keeps all of it beside it.
    """
    if draw == "images" or queries == 0 or queries >= len(labels):
        return sample_rows(len(labels), queries, seed)
    classes, counts = np.unique(labels, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(classes))
    enough = int(np.searchsorted(counts[order].cumsum(), queries)) + 1
    return np.flatnonzero(np.isin(labels, classes[order[:enough]]))


def sample_rows(count: int, queries: int, seed: int) -> Rows:
    """A seeded sample of `queries` of `count` rows, sorted; all of them where `queries` is 0 or too many."""
    if queries == 0 or queries >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, queries, replace=False))


def with_partner(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of these images have another one of their class among them: [Q] -> [Q]."""
    _, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    several: NDArray[np.bool_] = counts[place] > 1
    return several


def is_measurable(labels: NDArray[np.int64]) -> bool:
    """Whether images with these labels can be searched and clustered among themselves.

    That takes two classes of two images each: with one, whatever is found is right.
    """
    return len(np.unique(labels[with_partner(labels)])) > 1
