"""Recall@k and mean average precision, from embeddings or from neighbours already found.

To compute several of them at the cost of one search:

    sizes = class_sizes(labels)
    neighbours = nearest_neighbours(embeddings, max(*ks, 1000, sizes.max()))
    recall_from_neighbours(neighbours, labels, ks)
    map_from_neighbours(neighbours, labels, depth="R")
    map_from_neighbours(neighbours, labels, depth=1000)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mdprop.metrics._inputs import Array, as_embeddings, as_labels
from mdprop.metrics.neighbours import nearest_neighbours

Depth = Literal["R"] | int


def recall_at_k(
    embeddings: Array,
    labels: Array,
    ks: Sequence[int],
    *,
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    gallery_ids: Array | None = None,
    ids: Array | None = None,
) -> dict[int, float]:
    """The share of queries with an image of their class among their k nearest neighbours.

    embeddings: [Q, D]; labels: [Q] integers; ks: one or more numbers, each 1 or more.
    gallery: [G, D] with gallery_labels [G]; without it each query is searched among all others.
    ids: [Q], gallery_ids: [G]: gallery rows with the id of the query are the same image, left out.

    Returns the recall in [0, 1] by k. A query without any image of its class to find is a miss; a k
    beyond the gallery takes all of it. See `nearest_neighbours` for distance, ties and how this differs
    from the authors' code. Raises `ValueError` for empty inputs and lengths that do not match.
    """
    labels, gallery_labels = _checked(embeddings, labels, gallery, gallery_labels)
    ks = _checked_ks(ks)
    neighbours = nearest_neighbours(embeddings, max(ks), gallery=gallery, gallery_ids=gallery_ids, ids=ids)
    return recall_from_neighbours(neighbours, labels, ks, gallery_labels=gallery_labels)


def mean_average_precision(
    embeddings: Array,
    labels: Array,
    *,
    depth: Depth = "R",
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    gallery_ids: Array | None = None,
    ids: Array | None = None,
) -> float:
    """Mean average precision over the nearest `depth` neighbours, in [0, 1].

    With R = the number of gallery images of the query's class and hit(i) = 1 where neighbour i is one,
    a query scores Σ_{i ≤ depth} hit(i) · precision@i / R; the result is the mean over the queries.
    depth "R" is the authors' mAP_c; 1000 and 1023 are their mAP_1000 and mAP_lim.

    R counts the query's own row where the gallery holds it, as theirs does, though that row is never
    found: without a gallery, perfect retrieval scores (R - 1)/R. A query without any image of its class
    to find scores 0. Inputs and errors as in `recall_at_k`.
    """
    labels, gallery_labels = _checked(embeddings, labels, gallery, gallery_labels)
    reach = _reach(depth, class_sizes(labels, gallery_labels))
    neighbours = nearest_neighbours(embeddings, reach, gallery=gallery, gallery_ids=gallery_ids, ids=ids)
    return map_from_neighbours(neighbours, labels, depth=depth, gallery_labels=gallery_labels)


def recall_from_neighbours(
    neighbours: NDArray[np.int64],
    labels: Array,
    ks: Sequence[int],
    *,
    gallery_labels: Array | None = None,
) -> dict[int, float]:
    """`recall_at_k` from the result of `nearest_neighbours`, [Q, depth] with depth ≥ max(ks)."""
    ks = _checked_ks(ks)
    hits = _hits(neighbours, labels, gallery_labels, max(ks))
    return {k: float(hits[:, :k].any(axis=1).mean()) for k in ks}


def map_from_neighbours(
    neighbours: NDArray[np.int64],
    labels: Array,
    *,
    depth: Depth = "R",
    gallery_labels: Array | None = None,
) -> float:
    """`mean_average_precision` from the result of `nearest_neighbours`.

    neighbours: [Q, K], K ≥ depth; for "R", K ≥ the largest of `class_sizes`.
    """
    sizes = class_sizes(labels, gallery_labels)
    hits = _hits(neighbours, labels, gallery_labels, _reach(depth, sizes))
    query, rank = np.nonzero(hits)
    if depth == "R":
        within = rank < sizes[query]
        query, rank = query[within], rank[within]
    nth_hit = np.arange(len(query)) - np.searchsorted(query, query) + 1
    total = np.bincount(query, nth_hit / (rank + 1), minlength=len(sizes))
    return float(np.mean(total / np.maximum(sizes, 1)))


def class_sizes(labels: Array, gallery_labels: Array | None = None) -> NDArray[np.int64]:
    """[Q]: how many gallery images each query's class has, the query's own row included.

    labels: [Q]; gallery_labels: [G], or None where the queries are the gallery.
    """
    labels = as_labels(labels)
    gallery_labels = labels if gallery_labels is None else as_labels(gallery_labels, name="gallery_labels")
    classes, counts = np.unique(gallery_labels, return_counts=True)
    place = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
    return np.where(classes[place] == labels, counts[place], 0)


def _hits(
    neighbours: NDArray[np.int64], labels: Array, gallery_labels: Array | None, reach: int
) -> NDArray[np.bool_]:
    """[Q, reach]: whether each of the nearest neighbours is of the query's class."""
    if neighbours.ndim != 2 or neighbours.shape[1] < reach:
        raise ValueError(f"neighbours must be [Q, {reach}] or deeper, not {list(neighbours.shape)}")
    labels = as_labels(labels, len(neighbours))
    gallery_labels = labels if gallery_labels is None else as_labels(gallery_labels, name="gallery_labels")
    nearest = neighbours[:, :reach]
    if nearest.max() >= len(gallery_labels):
        raise ValueError(
            f"neighbours hold row {nearest.max()}, gallery_labels only {len(gallery_labels)} entries"
        )
    hits: NDArray[np.bool_] = (gallery_labels[nearest] == labels[:, None]) & (nearest >= 0)
    return hits


def _reach(depth: Depth, sizes: NDArray[np.int64]) -> int:
    """How many neighbours of each query a mean average precision of that depth looks at."""
    if depth == "R":
        return max(1, int(sizes.max()))
    if not isinstance(depth, (int, np.integer)) or depth < 1:
        raise ValueError(f"depth must be 'R' or a number from 1, not {depth!r}")
    return int(depth)


def _checked(
    embeddings: Array, labels: Array, gallery: Array | None, gallery_labels: Array | None
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """The labels of queries and gallery, as long as their embeddings."""
    if (gallery is None) != (gallery_labels is None):
        raise ValueError("gallery and gallery_labels go together: give both or neither")
    labels = as_labels(labels, len(as_embeddings(embeddings)))
    if gallery is None:
        return labels, None
    return labels, as_labels(gallery_labels, len(as_embeddings(gallery, "gallery")), "gallery_labels")  # type: ignore[arg-type]


def _checked_ks(ks: Sequence[Any]) -> list[int]:
    if not len(ks) or min(ks) < 1:
        raise ValueError(f"ks must be one or more numbers from 1, not {list(ks)}")
    return [int(k) for k in ks]
