"""Who is near whom: what several goals compute, with tensors for objectives, with numpy for measures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mdprop.attacks.goals.goal import Gallery

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor

ROUNDING = 1e-12
"""Squared distances in float64 that differ by less are equal, as those of two copies of an image."""

CELLS = 2**22
"""Of a block of queries by gallery, in float64."""


def draw(count: int, rows: Tensor, generator: Generator, *, itself: bool) -> Tensor:
    """One uniform row of `count` for each of `rows` [Q], which may be the row `itself` or not: [1, Q]."""
    import torch

    count -= not itself
    if not count:
        raise ValueError("there is no other image to look at")
    drawn = torch.randint(count, (1, len(rows)), generator=generator)
    return drawn if itself else drawn + (drawn >= rows)


def distances(points: Tensor, embeddings: Tensor) -> Tensor:
    """Euclidean, with gradients: [B, D], [N, D] -> [B, N], in memory of that size."""
    import torch

    return torch.cdist(points, embeddings)


def ranking_among(embeddings: Tensor, rows: Tensor) -> Tensor:
    """All other rows of `embeddings` [N, D] by their distance from each of `rows` [Q], the nearest first.

    Returns [Q, N - 1]; for a single row, itself. No value is fetched from the device.
    """
    import torch

    # Exact differences: by products, images that are near would be ordered by rounding.
    apart = torch.cdist(embeddings[rows], embeddings, compute_mode="donot_use_mm_for_euclid_dist")
    order = apart.masked_fill(is_row(rows, len(embeddings)), float("inf")).argsort(dim=1, stable=True)
    return order[:, : max(1, len(embeddings) - 1)]


def is_row(rows: Tensor, count: int) -> Tensor:
    """Where each of `rows` [B] is among `count` rows, -1 nowhere: [B, N] of bool."""
    import torch

    return torch.arange(count, device=rows.device) == rows[:, None]


def largest_class(labels: Tensor) -> int:
    """The size of the largest class: of so many other images, one at least is of another class.

    Raises `ValueError` where there is one class only.
    """
    largest = int(labels.unique(return_counts=True)[1].max())
    if largest == len(labels):
        raise ValueError("all images are of one class: there is no other class to aim at")
    return largest


def first_of_another_class(ranking: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
    """The first row of each ranking that is not of the class: [Q, N'], [N], [Q] -> [Q].

    The first one of all where there is none: to look for that would be to wait for a GPU.
    """
    other = labels[ranking] != classes[:, None]
    return ranking.gather(1, other.long().argmax(1, keepdim=True))[:, 0]


def count_closer(
    anchors: NDArray[Any],
    points: NDArray[Any],
    embeddings: NDArray[Any],
    left_out: Sequence[NDArray[Any]],
) -> NDArray[np.int64]:
    """How many rows of `embeddings` [N, D] are closer to each anchor than its point is.

    anchors, points: [Q, D]. left_out: rows [Q] that do not count, -1 for none. Ties are not closer.
    """
    import numpy as np

    gallery = embeddings.astype(np.float64)
    squares = np.square(gallery).sum(1)
    counts = np.empty(len(anchors), dtype=np.int64)
    block = max(1, CELLS // len(gallery))
    for start in range(0, len(anchors), block):
        part = slice(start, start + block)
        anchor, point = anchors[part].astype(np.float64), points[part].astype(np.float64)
        # ‖a - x‖² without ‖a‖², which both sides have.
        limit = np.square(point).sum(1) - 2 * (anchor * point).sum(1)
        closer = squares - 2 * anchor @ gallery.T < limit[:, None] - ROUNDING
        for rows in left_out:
            held = np.flatnonzero(rows[part] >= 0)
            closer[held, rows[part][held]] = False
        counts[part] = closer.sum(1)
    return counts


def class_centroids(gallery: Gallery[NDArray[Any]], clean: NDArray[Any]) -> NDArray[np.float64]:
    """The mean of the gallery's images of each attacked image's class, its own left out: [Q, D].

    clean: [Q, D], taken for an image without others of its class.
    """
    import numpy as np

    classes, numbers = np.unique(gallery.labels, return_inverse=True)
    sums = np.zeros((len(classes), clean.shape[1]))
    np.add.at(sums, numbers, gallery.embeddings)
    place = np.searchsorted(classes, gallery.query_labels).clip(max=len(classes) - 1)
    known = classes[place] == gallery.query_labels
    count = np.bincount(numbers)[place] * known
    total = sums[place] * known[:, None]
    held = np.flatnonzero(gallery.rows >= 0)
    count[held] -= 1
    total[held] -= gallery.embeddings[gallery.rows[held]]
    return np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], clean)
