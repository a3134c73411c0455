"""At which rank each query finds the images of its class: all that recall and precision depend on.

Exact at little more than the cost of the search: rounding matters only where it could swap an image of
the query's class with one of another, which are few of the pairs that it could swap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdprop.metrics.index import Index
from mdprop.metrics.neighbours import SPARE, Images, chunks, different_rows, pair_distances, settled

_CROWD = 32  # so many rows within the rounding of one another are sorted by exact distance at once


@dataclass(frozen=True)
class Ranks:
    """query, rank: [H], the images of a query's class among its nearest, in the order of (query, rank).

    The first rank is 1. sizes: [Q], how many gallery images each query's class has, its own included.
    """

    query: NDArray[np.int32]
    rank: NDArray[np.int32]
    sizes: NDArray[np.int64]

    def found(self, k: int) -> NDArray[np.bool_]:
        """[Q]: whether an image of the query's class is among the k nearest."""
        found = np.zeros(len(self.sizes), dtype=bool)
        found[self.query[self.rank <= k]] = True
        return found

    def mean_precision(self, depth: int | None) -> float:
        """Mean over the queries of Σ precision at the hits within `depth` / size; None: within the size."""
        within = self.rank <= (self.sizes[self.query] if depth is None else depth)
        query, rank = self.query[within], self.rank[within]
        total = np.bincount(query, (_nth(query) + 1) / rank, minlength=len(self.sizes))
        return float(np.mean(total / np.maximum(self.sizes, 1)))


def hit_ranks(
    images: Images,
    labels: NDArray[np.int32],
    gallery_labels: NDArray[np.int32],
    sizes: NDArray[np.int64],
    index: Index,
    depth: int,
) -> Ranks:
    """The ranks up to `depth` of the images of each query's class, without the query's own.

    labels: [Q], gallery_labels: [G]; sizes: [Q] of the classes; index: of images.gallery.
    In the order of (distance, row) of `nearest_neighbours`: exactly with an exact index, among the rows
    that it finds with another. Memory is O((Q + G) D + hits), and a block of neighbours.
    """
    total = len(images.gallery)
    count = min(total, depth + images.most_copies)
    width = min(total, count + SPARE)
    different, which = different_rows(images.queries)
    pending = np.argsort(which, kind="stable")
    found: list[NDArray[np.int32]] = []
    while len(pending):
        unsettled = [pending[:0]]
        for chunk in chunks(pending, width):
            asked, member = np.unique(which[chunk], return_inverse=True)
            distances, rows, doubt = index.search(different[asked], width)
            if len(asked) < len(chunk):  # identical queries
                distances, rows, doubt = distances[member], rows[member], doubt[member]
            complete = np.full(len(chunk), True)
            if index.exact and width < total:
                complete = settled(distances, doubt, count)
                unsettled.append(chunk[~complete])
            queries = images.queries[chunk]
            doubt[_sort_crowds(queries, images.gallery, distances, rows, doubt)] = -1
            own = images.own[chunk, None] == images.gallery_own[rows]
            hit = labels[chunk, None] == gallery_labels[rows]
            if not index.exact:
                hit &= rows >= 0
            query, rank = _block_ranks(queries, images.gallery, distances, rows, doubt, hit, own)
            kept = complete[query] & (rank <= depth)
            found.append(np.stack([chunk[query[kept]], rank[kept]]).astype(np.int32))
        pending = np.concatenate(unsettled)
        width = min(total, 4 * width)
    query, rank = np.concatenate(found, axis=1)
    order = np.lexsort((rank, query))
    return Ranks(query[order], rank[order], sizes)


def _block_ranks(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    distances: NDArray[np.float32],
    rows: NDArray[np.int64],
    doubt: NDArray[np.float32],
    hit: NDArray[np.bool_],
    own: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(query, rank) of the hits among the rows found for queries [b, D]; the other arrays are [b, width].

    A rank is the number of misses truly before the hit, and of hits: the order of two hits changes
    nothing. Misses within the doubt of a hit's distance are compared with it in float64.
    """
    special = hit | own
    query, place = np.nonzero(special)
    misses = place - _nth(query)
    hits = np.flatnonzero(hit[query, place] & ~own[query, place])
    query, place, misses = query[hits], place[hits], misses[hits]
    for step in (1, -1):
        for number, other in _in_doubt(distances, query, place, doubt, step):
            miss = ~special[query[number], other] & (rows[query[number], other] >= 0)
            number, other = number[miss], other[miss]
            which = query[number]
            row, other_row = rows[which, place[number]], rows[which, other]
            distance = pair_distances(queries, which, gallery, row)
            other_distance = pair_distances(queries, which, gallery, other_row)
            before = (other_distance < distance) | ((other_distance == distance) & (other_row < row))
            misses[number[before == (step > 0)]] += step
    order = np.lexsort((misses, query))
    query = query[order]
    return query, misses[order] + _nth(query) + 1


def _in_doubt(
    distances: NDArray[np.float32],
    query: NDArray[np.int64],
    place: NDArray[np.int64],
    doubt: NDArray[np.float32],
    step: int,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The entries on one side of distances[query, place] that rounding could have put on the other.

    Yields, for 1, 2, ... steps away, the numbers of the places [P] that have one there, and where it is.
    """
    number, other = np.arange(len(place)), place + step
    while len(number):
        inside = (other >= 0) & (other < distances.shape[1])
        number, other = number[inside], other[inside]
        which = query[number]
        near = abs(distances[which, other] - distances[which, place[number]]) <= doubt[which, 0]
        number, other = number[near], other[near]
        yield number, other
        other = other + step


def _sort_crowds(
    queries: NDArray[np.float32],
    gallery: NDArray[np.float32],
    distances: NDArray[np.float32],
    rows: NDArray[np.int64],
    doubt: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Put `rows` of the queries that crowds surround into their exact order; returns which these are."""
    crowded = (distances[:, _CROWD:] - doubt < distances[:, :-_CROWD]).any(axis=1)
    (which,) = np.nonzero(crowded)
    if len(which):
        found = rows[which]
        query = which.repeat(found.shape[1])
        exact = pair_distances(queries, query, gallery, found.ravel()).reshape(found.shape)
        exact[found < 0] = np.inf
        rows[which] = np.take_along_axis(found, np.lexsort((found, exact)), axis=1)
    return which


def _nth(query: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many entries of the same query come before each of sorted queries [H]."""
    return np.arange(len(query)) - np.searchsorted(query, query)
