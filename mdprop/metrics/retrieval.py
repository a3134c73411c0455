"""Recall@k and mean average precision: what they make of each query, all of it from one search."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mdprop.arrays import Array, as_embeddings, as_labels
from mdprop.metrics.index import Index
from mdprop.metrics.neighbours import Images, as_images, in_order

Depth = Literal["R"] | int
Limits = Mapping[Depth, NDArray[np.int64]]

SAMPLE = 2000  # queries that are searched exactly too where the rest are not
GAP = 0.001  # the largest share of them that an approximate search may answer differently at k = 1
MOST_CELLS = 32  # it may look at one in so many; at one in 16 it takes as long as an exact search

_UNNAMED = (
    "a gallery without ids: a query whose own image lies there finds that one; give ids and gallery_ids (an "
    "attacked image has the id of its original), or disjoint=True where no image is in both"
)


@dataclass(frozen=True)
class Retrieval:
    """What a search found for each query, in the order of the queries.

    nearest: [Q] int64, the gallery row of the nearest neighbour, -1 where there is none.
    rank: [Q] int32, of the nearest image of the query's class, from 1; 0 where the depth holds none.
    precision: {depth: [Q] float64}, the average precision of `mean_average_precision`.
    depth: how many neighbours of each query were searched.
    gaps: {"recall_at_<k>_gap", "map_at_<depth>_gap"}, of an approximate search; else empty.
    """

    nearest: NDArray[np.int64]
    rank: NDArray[np.int32]
    precision: Mapping[Depth, NDArray[np.float64]]
    depth: int
    gaps: Mapping[str, float]

    def recall(self, k: int) -> float:
        """The share of queries with an image of their class among the k nearest, 1 ≤ k ≤ depth."""
        if not 1 <= k <= self.depth:
            raise ValueError(f"k must be from 1 to the depth searched, {self.depth}, not {k}")
        return float(np.mean((self.rank > 0) & (self.rank <= k)))

    def mean_precision(self, depth: Depth) -> float:
        """The mean over the queries of one of the depths asked for."""
        return float(np.mean(self.precision[depth]))


def retrieve(
    embeddings: Array,
    labels: Array,
    ks: Sequence[int],
    depths: Sequence[Depth] = ("R",),
    *,
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    gallery_ids: Array | None = None,
    ids: Array | None = None,
    disjoint: bool = False,
    exact_limit: int | None = None,
    seed: int = 0,
) -> Retrieval:
    """What `recall_at_k` at `ks` and `mean_average_precision` at `depths` are the means of, from one search.

    Arguments and errors as there, and:
    exact_limit: with a gallery of more rows the search is approximate (FAISS's IVF index), unless the
        queries are so few that the control below would take as long as an exact search of all; None: never.
    seed: of the index and of the control.

    Above the limit the result has a gap for each mean: how far the approximate one falls short of the
    exact one on a control of SAMPLE queries drawn with the seed, 0 when all were searched exactly. The
    search looks at as many cells as it takes for the nearest neighbour of all but GAP of the control to
    be right or wrong as in the exact search; where that is more than one in MOST_CELLS, all is searched
    exactly, which is as fast. Memory is O((Q + G) D).
    """
    task = _task(embeddings, labels, gallery, gallery_labels, gallery_ids, ids, disjoint)
    ks = _checked_ks(ks)
    limits = {depth: _limits(depth, task.sizes) for depth in depths}
    reach = max(*ks, *(int(limit.max()) for limit in limits.values()), 1)
    if exact_limit is None or len(task.images.gallery) <= exact_limit:
        return task.search(reach, limits)
    if len(task.labels) > SAMPLE and (found := _approximate(task, reach, limits, ks, seed)):
        return found
    found = task.search(reach, limits)
    return replace(found, gaps=_gaps(found, found, ks))


def recall_at_k(
    embeddings: Array,
    labels: Array,
    ks: Sequence[int],
    *,
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    gallery_ids: Array | None = None,
    ids: Array | None = None,
    disjoint: bool = False,
) -> dict[int, float]:
    """The share of queries with an image of their class among their k nearest neighbours.

    embeddings: [Q, D]; labels: [Q] integers; ks: one or more numbers, each 1 or more.
    gallery: [G, D] with gallery_labels [G]; without it each query is searched among all others.
    ids: [Q], gallery_ids: [G]: gallery rows with the id of the query are the same image, left out. An
        attacked image has the id of the image that it was made from: without ids it finds that one, and
        the recall says nothing about the attack. Hence a `UserWarning` for a gallery without ids;
    disjoint: says that no image is in both, so that there is nothing to leave out.

    Returns the recall in [0, 1] by k. A query without any image of its class to find is a miss; a k
    beyond the gallery takes all of it. See `nearest_neighbours` for distance, ties and how this differs
    from the authors' code. Raises `ValueError` for empty inputs, lengths that do not match, and
    `disjoint` with ids or without a gallery.
    """
    task = _task(embeddings, labels, gallery, gallery_labels, gallery_ids, ids, disjoint)
    ks = _checked_ks(ks)
    found = task.search(max(ks), {})
    return {k: found.recall(k) for k in ks}


def mean_average_precision(
    embeddings: Array,
    labels: Array,
    *,
    depth: Depth = "R",
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    gallery_ids: Array | None = None,
    ids: Array | None = None,
    disjoint: bool = False,
) -> float:
    """Mean average precision over the nearest `depth` neighbours, in [0, 1].

    With R = the number of gallery images of the query's class and hit(i) = 1 where neighbour i is one,
    a query scores Σ_{i ≤ depth} hit(i) · precision@i / R; the result is the mean over the queries.
    depth "R" is the authors' mAP_c; 1000 and 1023 are their mAP_1000 and mAP_lim.

    R counts the query's own row where the gallery holds it, as theirs does, though that row is never
    found: without a gallery, perfect retrieval scores (R - 1)/R. A query without any image of its class
    to find scores 0. Inputs and errors as in `recall_at_k`.
    """
    task = _task(embeddings, labels, gallery, gallery_labels, gallery_ids, ids, disjoint)
    limits = {depth: _limits(depth, task.sizes)}
    return task.search(max(1, int(limits[depth].max())), limits).mean_precision(depth)


@dataclass(frozen=True)
class _Task:
    """Queries [Q] to find the images of their class for; labels are numbered from 0, sizes [Q] theirs."""

    images: Images
    labels: NDArray[np.int32]
    gallery_labels: NDArray[np.int32]
    sizes: NDArray[np.int64]

    def only(self, rows: NDArray[np.int64]) -> _Task:
        """The same gallery with fewer queries."""
        images = replace(self.images, queries=self.images.queries[rows], own=self.images.own[rows])
        return replace(self, images=images, labels=self.labels[rows], sizes=self.sizes[rows])

    def search(self, reach: int, limits: Limits, index: Index | None = None) -> Retrieval:
        """reach: the neighbours to search. limits: {depth: [Q], how many of them count}, at most `reach`.
        index: an approximate one; None searches exactly, at little more than the cost of the search, as
            rounding matters only where it could swap images of the query's class and of others, or the
            nearest one.
        """
        count = len(self.labels)
        nearest, first = np.empty(count, dtype=np.int64), np.zeros(count, dtype=np.int32)
        precision = {depth: np.zeros(count) for depth in limits}
        for query, rows, own in in_order(self.images, reach, self._kinds, index):
            places = np.arange(len(query)), own.argmin(axis=1)
            nearest[query] = np.where(own[places], -1, rows[places])
            hit, place = np.nonzero(self._same(query, rows) & ~own & (rows >= 0))
            rank = place + 1 - np.cumsum(own, axis=1, dtype=np.int32)[hit, place]
            hit, rank = hit[rank <= reach], rank[rank <= reach]
            before = np.arange(len(hit)) - np.searchsorted(hit, hit)
            first[query[hit[before == 0]]] = rank[before == 0]
            for depth, limit in limits.items():
                within = rank <= limit[query[hit]]
                shares = (before[within] + 1) / rank[within]
                total = np.bincount(hit[within], shares, minlength=len(query))
                precision[depth][query] = total / np.maximum(self.sizes[query], 1)
        return Retrieval(nearest, first, precision, reach, {})

    def _same(self, query: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        same: NDArray[np.bool_] = self.labels[query, None] == self.gallery_labels[rows]
        return same

    def _kinds(
        self, query: NDArray[np.int64], rows: NDArray[np.int64], own: NDArray[np.bool_]
    ) -> NDArray[np.int8]:
        """[b, width]: 0 an image of another class, 1 one of the query's, 2 the nearest, not its own."""
        kinds = self._same(query, rows).astype(np.int8)
        kinds[np.arange(len(query)), own.argmin(axis=1)] = 2
        return kinds


def _approximate(task: _Task, reach: int, limits: Limits, ks: Sequence[int], seed: int) -> Retrieval | None:
    """None where the cells that a search may look at are not enough."""
    rows = np.sort(np.random.default_rng(seed).choice(len(task.labels), SAMPLE, replace=False))
    sample = task.only(rows)
    sample_limits = {depth: limit[rows] for depth, limit in limits.items()}
    exact = sample.search(reach, sample_limits)
    index = Index(task.images.gallery, cells=_cells(len(task.images.gallery)), seed=seed)
    control, least = None, 0
    effort = max(1, index.cells // MOST_CELLS)
    while effort:
        index.set_effort(effort)
        found = sample.search(reach, sample_limits, index)
        if np.mean((found.rank == 1) != (exact.rank == 1)) > GAP:
            break
        control, least, effort = found, effort, effort // 2
    if control is None:
        return None
    index.set_effort(least)
    return replace(task.search(reach, limits, index), gaps=_gaps(exact, control, ks))


def _gaps(exact: Retrieval, found: Retrieval, ks: Sequence[int]) -> dict[str, float]:
    recall = {f"recall_at_{k}_gap": exact.recall(k) - found.recall(k) for k in ks}
    return recall | {
        f"map_at_{str(depth).lower()}_gap": exact.mean_precision(depth) - found.mean_precision(depth)
        for depth in exact.precision
    }


def _cells(rows: int) -> int:
    """About the root: to make the index then costs as much as to search about 2000 queries exactly."""
    return 2 ** round(np.log2(rows**0.5))


def _task(
    embeddings: Array,
    labels: Array,
    gallery: Array | None,
    gallery_labels: Array | None,
    gallery_ids: Array | None,
    ids: Array | None,
    disjoint: bool = False,
) -> _Task:
    if (gallery is None) != (gallery_labels is None):
        raise ValueError("gallery and gallery_labels go together: give both or neither")
    unnamed = ids is None and gallery_ids is None
    if disjoint and (gallery is None or not unnamed):
        raise ValueError("disjoint is about a gallery without ids: leave it, or the ids, out")
    if gallery is not None and unnamed and not disjoint:
        warnings.warn(_UNNAMED, stacklevel=3)
    embeddings = as_embeddings(embeddings)
    labels = as_labels(labels, len(embeddings))
    if gallery is None or gallery_labels is None:
        gallery_labels = labels
    else:
        gallery = as_embeddings(gallery, "gallery")
        gallery_labels = as_labels(gallery_labels, len(gallery), "gallery_labels")
    images = as_images(embeddings, gallery, gallery_ids, ids)
    numbers = np.unique(np.concatenate([labels, gallery_labels]), return_inverse=True)[1].astype(np.int32)
    queried, searched = numbers[: len(labels)], numbers[len(labels) :]
    sizes = np.bincount(searched, minlength=numbers.max() + 1)[queried]
    return _Task(images, queried, searched, sizes)


def _limits(depth: Depth, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """[Q]: how many neighbours of each query a mean average precision of that depth looks at."""
    if depth == "R":
        return sizes
    if not isinstance(depth, (int, np.integer)) or depth < 1:
        raise ValueError(f"depth must be 'R' or a number from 1, not {depth!r}")
    return np.full(len(sizes), depth)


def _checked_ks(ks: Sequence[Any]) -> list[int]:
    if not len(ks) or min(ks) < 1:
        raise ValueError(f"ks must be one or more numbers from 1, not {list(ks)}")
    return [int(k) for k in ks]
