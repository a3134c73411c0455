"""Recall@k and mean average precision, all of them from one search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mdprop.metrics._inputs import Array, as_embeddings, as_labels
from mdprop.metrics.index import Index
from mdprop.metrics.neighbours import Images, as_images
from mdprop.metrics.ranks import Ranks, hit_ranks

Depth = Literal["R"] | int

SAMPLE = 2000  # queries that are searched exactly too where the rest are not
GAP = 0.001  # the largest share of them that an approximate search may answer differently at k = 1
MOST_CELLS = 32  # it may look at one in so many; at one in 16 it takes as long as an exact search


def retrieval_scores(
    embeddings: Array,
    labels: Array,
    ks: Sequence[int],
    depths: Sequence[Depth] = ("R",),
    *,
    gallery: Array | None = None,
    gallery_labels: Array | None = None,
    gallery_ids: Array | None = None,
    ids: Array | None = None,
    exact_limit: int | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """{"recall_at_<k>", "map_at_<depth>"}: `recall_at_k` and `mean_average_precision` from one search.

    depth "R" is called map_at_r. Arguments and errors as there, and:
    exact_limit: with a gallery of more rows the search is approximate (FAISS's IVF index), unless the
        queries are so few that the control below would take as long as an exact search of all; None: never.
    seed: of the index and of the control.

    Above the limit the result holds a "<name>_gap" for each score: how far the approximate one falls
    short of the exact one on a control of SAMPLE queries drawn with the seed, 0 when all were searched
    exactly. The search looks at as many cells as it takes for the nearest neighbour of all but GAP of
    the control to be right or wrong as in the exact search; where that is more than one in MOST_CELLS, all
    is searched exactly, which is as fast. Memory is O((Q + G) D + hits).
    """
    task = _task(embeddings, labels, gallery, gallery_labels, gallery_ids, ids)
    ks, depths = _checked_ks(ks), list(depths)
    reach = max(*ks, *(_reach(depth, task.sizes) for depth in depths), 1)

    def scores(ranks: Ranks) -> dict[str, float]:
        precision = {f"map_at_{str(d).lower()}": ranks.mean_precision(_limit(d)) for d in depths}
        return {f"recall_at_{k}": float(ranks.found(k).mean()) for k in ks} | precision

    rows = len(task.images.gallery)
    if exact_limit is None or rows <= exact_limit:
        return scores(task.search(Index(task.images.gallery), reach))
    found = _approximate(task, reach, seed) if len(task.labels) > SAMPLE else None
    if found is None:
        result = scores(task.search(Index(task.images.gallery), reach))
        return result | {f"{name}_gap": 0.0 for name in result}
    ranks, control_exact, control = found
    gaps = {
        f"{name}_gap": exact - approximate
        for (name, exact), approximate in zip(
            scores(control_exact).items(), scores(control).values(), strict=True
        )
    }
    return scores(ranks) | gaps


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
    task = _task(embeddings, labels, gallery, gallery_labels, gallery_ids, ids)
    ks = _checked_ks(ks)
    ranks = task.search(Index(task.images.gallery), max(ks))
    return {k: float(ranks.found(k).mean()) for k in ks}


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
    task = _task(embeddings, labels, gallery, gallery_labels, gallery_ids, ids)
    ranks = task.search(Index(task.images.gallery), _reach(depth, task.sizes))
    return ranks.mean_precision(_limit(depth))


@dataclass(frozen=True)
class _Task:
    """Queries [Q] to find the images of their class for; labels are numbered from 0, sizes [Q] theirs."""

    images: Images
    labels: NDArray[np.int32]
    gallery_labels: NDArray[np.int32]
    sizes: NDArray[np.int64]

    def search(self, index: Index, reach: int) -> Ranks:
        return hit_ranks(self.images, self.labels, self.gallery_labels, self.sizes, index, reach)

    def only(self, rows: NDArray[np.int64]) -> _Task:
        """The same gallery with fewer queries."""
        images = replace(self.images, queries=self.images.queries[rows], own=self.images.own[rows])
        return replace(self, images=images, labels=self.labels[rows], sizes=self.sizes[rows])


def _approximate(task: _Task, reach: int, seed: int) -> tuple[Ranks, Ranks, Ranks] | None:
    """Approximate ranks of all queries, and of the control exactly and approximately.

    None where the cells that a search may look at are not enough.
    """
    rows = np.random.default_rng(seed).choice(len(task.labels), SAMPLE, replace=False)
    sample = task.only(np.sort(rows))
    exact = sample.search(Index(task.images.gallery), reach)
    gallery = task.images.gallery
    index = Index(gallery, cells=_cells(len(gallery)), seed=seed)
    control, least = None, 0
    effort = max(1, index.cells // MOST_CELLS)
    while effort:
        index.set_effort(effort)
        ranks = sample.search(index, reach)
        if np.mean(ranks.found(1) != exact.found(1)) > GAP:
            break
        control, least, effort = ranks, effort, effort // 2
    if control is None:
        return None
    index.set_effort(least)
    return task.search(index, reach), exact, control


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
) -> _Task:
    if (gallery is None) != (gallery_labels is None):
        raise ValueError("gallery and gallery_labels go together: give both or neither")
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


def _reach(depth: Depth, sizes: NDArray[np.int64]) -> int:
    """How many neighbours of each query a mean average precision of that depth looks at."""
    limit = _limit(depth)
    return max(1, int(sizes.max())) if limit is None else limit


def _limit(depth: Depth) -> int | None:
    """None for "R"."""
    if depth == "R":
        return None
    if not isinstance(depth, (int, np.integer)) or depth < 1:
        raise ValueError(f"depth must be 'R' or a number from 1, not {depth!r}")
    return int(depth)


def _checked_ks(ks: Sequence[Any]) -> list[int]:
    if not len(ks) or min(ks) < 1:
        raise ValueError(f"ks must be one or more numbers from 1, not {list(ks)}")
    return [int(k) for k in ks]
