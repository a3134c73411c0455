"""The nearest images of each query, in their exact order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdprop.arrays import Array, Floats, as_embeddings, as_vector, in_range
from mdprop.metrics.index import Index

_SPARE = 16  # rows searched beyond the depth, so that rounding rarely asks for a second search
_BLOCK = 2**20  # numbers in an intermediate array of the search
_CACHED = 2**16  # numbers in one that should stay in the cache

Rows = NDArray[np.int64]
Kinds = Callable[[Rows, Rows, NDArray[np.bool_]], NDArray[np.int8]]


@dataclass(frozen=True)
class Images:
    """Queries [Q, D] and gallery [G, D], `in_range`, and numbers of the images behind them, equal for equal
    images."""

    queries: Floats
    own: NDArray[np.int32]
    gallery: Floats
    gallery_own: NDArray[np.int32]

    @property
    def most_copies(self) -> int:
        """The most gallery rows that are left out for one query."""
        present, copies = np.unique(self.gallery_own, return_counts=True)
        return int(copies[np.isin(present, self.own)].max(initial=0))


def as_images(queries: Array, gallery: Array | None, gallery_ids: Array | None, ids: Array | None) -> Images:
    """The checked arguments of `nearest_neighbours`."""
    queries = as_embeddings(queries, "queries")
    if gallery is None:
        if gallery_ids is not None:
            raise ValueError("gallery_ids needs a gallery")
        gallery = queries
        ids = gallery_ids = np.arange(len(queries)) if ids is None else ids
    else:
        gallery = as_embeddings(gallery, "gallery")
    if gallery.shape[1] != queries.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions and the gallery {gallery.shape[1]}")
    own, gallery_own = _identities(len(queries), len(gallery), gallery_ids, ids)
    queries, gallery = in_range(queries, gallery)
    return Images(queries, own, gallery, gallery_own)


def nearest_neighbours(
    queries: Array,
    depth: int,
    *,
    gallery: Array | None = None,
    gallery_ids: Array | None = None,
    ids: Array | None = None,
) -> Rows:
    """The nearest gallery rows of each query, the query itself left out.

    queries: [Q, D]; gallery: [G, D], or None to search each query among all others.
    ids: [Q], gallery_ids: [G], integers or strings: rows of equal id are the same image and are left
        out. Without a gallery the ids default to the row numbers; with one, None leaves nothing out.

    Returns [Q, depth] int64 rows of the gallery, nearest first, -1 where the gallery has no more.

    The distance is the squared Euclidean one, for unit-norm rows in the order of the inner product. The
    result is exact: FAISS's flat float32 index proposes rows, and where rounding could have swapped
    two of them their distances in float64 decide. Of equal distances the lower row comes first, so
    identical images keep their place. (The authors drop the first neighbour that FAISS gives as "self".)
    Numbers may be of any magnitude, and of any offset that their type leaves digits for; distances below
    1e-150 of the largest number count as none.
    Memory is O((Q + G) D + Q depth).

    Raises `ValueError` for empty inputs, lengths that do not match and depth < 1.
    """
    if depth < 1:
        raise ValueError(f"depth must be 1 or more, not {depth}")
    depth = int(depth)
    images = as_images(queries, gallery, gallery_ids, ids)
    result = np.full((len(images.queries), depth), -1, dtype=np.int64)
    for query, rows, own in in_order(images, depth):
        rows[own] = -1
        order = np.argsort(own, axis=1, kind="stable")[:, :depth]
        result[query, : order.shape[1]] = np.take_along_axis(rows, order, axis=1)
    return result


def in_order(
    images: Images, depth: int, kinds: Kinds | None = None, index: Index | None = None
) -> Iterator[tuple[Rows, Rows, NDArray[np.bool_]]]:
    """The gallery rows of each query by (distance, row): all that can be of its `depth` nearest.

    kinds: given queries [b], their rows and which are the query's own [b, width], the kind of each row:
        rows of one kind may stay swapped with one another where rounding swapped them, which saves time.
    index: an inexact one of the whole gallery, for the rows that it finds, then -1; else all is searched.

    Yields pieces of a bounded size, each query once: numbers of queries [b], their rows and which are
    the query's own [b, width]. Beyond the `depth` nearest without its own, rows are out of order or lacking.
    """
    count = depth + images.most_copies
    firsts, exact = None, index is None
    if index is None:
        firsts = _first_copies(images.gallery, count)
        index = Index(images.gallery if firsts is None else images.gallery[firsts])
    count = min(index.size, count)
    width = min(index.size, count + _SPARE)
    pending = np.arange(len(images.queries))
    while len(pending):
        unsettled = [pending[:0]]
        for query in _chunks(pending, width):
            distances, rows, doubt = index.search(images.queries[query], width)
            if exact and width < index.size:
                # The rows found hold the `count` truly nearest, with all that may tie.
                settled = distances[:, count - 1] < distances[:, -1] - 2 * doubt[:, 0]
                if not settled.all():
                    unsettled.append(query[~settled])
                    query, distances = query[settled], distances[settled]
                    rows, doubt = rows[settled], doubt[settled]
            rows = rows if firsts is None else firsts[rows]
            own = images.own[query, None] == images.gallery_own[rows]
            kind = None if kinds is None else kinds(query, rows, own)
            if _settle(images, query, rows, np.diff(distances, axis=1) <= doubt, kind):
                own = images.own[query, None] == images.gallery_own[rows]
            yield query, rows, own
        pending = np.concatenate(unsettled)
        width = min(index.size, 4 * width)


def _settle(
    images: Images, query: Rows, rows: Rows, close: NDArray[np.bool_], kind: NDArray[np.int8] | None
) -> bool:
    """Sort each run of close `rows` [b, width] that is of several kinds; whether there was any.

    close: [b, width - 1], whether rounding could have swapped a row with the next. Rows of one run may
    change places among themselves, not with any other row.
    """
    begins = np.pad(~close, ((0, 0), (1, 0)), constant_values=True)
    linked = ~begins
    linked[:, :-1] |= close
    place = np.flatnonzero(linked)
    begins = begins.ravel()[place]
    run = np.cumsum(begins)
    if kind is not None:
        kind, starts = kind.ravel()[place], np.flatnonzero(begins)
        mixed = np.minimum.reduceat(kind, starts) < np.maximum.reduceat(kind, starts)
        kept = mixed[run - 1]
        place, run = place[kept], run[kept]
    row = rows.reshape(-1)[place]
    distances = _pair_distances(images, query[place // rows.shape[1]], row)
    rows.reshape(-1)[place] = row[np.lexsort((row, distances, run))]
    return bool(len(place))


def _first_copies(gallery: Floats, count: int) -> Rows | None:
    """The rows of [G, D] without those that equal `count` earlier ones; None for all of them."""
    if np.unique(gallery[:, 0], return_counts=True)[1].max() <= count:
        return None  # as is usual, without a copy of the gallery
    raw = gallery.view(np.dtype((np.void, gallery.shape[1] * gallery.itemsize)))[:, 0]
    _, which, copies = np.unique(raw, return_inverse=True, return_counts=True)
    if copies.max() <= count:
        return None
    order = np.argsort(which, kind="stable")
    earlier = np.arange(len(order)) - (np.cumsum(copies) - copies).repeat(copies)
    return np.sort(order[earlier < count])


def _pair_distances(images: Images, query: Rows, row: Rows) -> NDArray[np.float64]:
    """[P] squared distances of P pairs in float64, the same for the same two vectors."""
    distances = np.empty(len(row))
    for pairs in _chunks(np.arange(len(row)), images.queries.shape[1], _CACHED):
        difference = np.subtract(images.gallery[row[pairs]], images.queries[query[pairs]], dtype=np.float64)
        distances[pairs] = np.einsum("pd,pd->p", difference, difference)
    return distances


def _chunks(rows: Rows, width: int, block: int | None = None) -> Iterator[Rows]:
    """Pieces of `rows` whose matrices of that width hold at most `block` numbers, or one row."""
    size = max(1, (block or _BLOCK) // width)
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _identities(
    count: int, gallery_count: int, gallery_ids: Array | None, ids: Array | None
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Numbers of the images behind queries [Q] and gallery [G]; equal numbers are equal images."""
    if ids is None and gallery_ids is None:
        return np.full(count, -1, dtype=np.int32), np.zeros(gallery_count, dtype=np.int32)
    if ids is None or gallery_ids is None:
        raise ValueError("ids and gallery_ids go together: give both or neither")
    both = [as_vector(ids, count, "ids"), as_vector(gallery_ids, gallery_count, "gallery_ids")]
    numbers = np.unique(np.concatenate(both), return_inverse=True)[1].astype(np.int32)
    return numbers[:count], numbers[count:]
