"""The nearest images of each query, in their exact order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdprop.metrics._inputs import Array, as_embeddings, as_vector
from mdprop.metrics.index import Index

SPARE = 16  # rows searched beyond the depth, so that rounding rarely asks for a second search
_BLOCK = 2**20  # numbers in an intermediate array of the search
_CACHED = 2**16  # numbers in one that should stay in the cache


@dataclass(frozen=True)
class Images:
    """Queries [Q, D] and gallery [G, D], and numbers of the images behind them, equal for equal images."""

    queries: NDArray[np.float32]
    own: NDArray[np.int32]
    gallery: NDArray[np.float32]
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
    return Images(queries, own, gallery, gallery_own)


def nearest_neighbours(
    queries: Array,
    depth: int,
    *,
    gallery: Array | None = None,
    gallery_ids: Array | None = None,
    ids: Array | None = None,
) -> NDArray[np.int64]:
    """The nearest gallery rows of each query, the query itself left out.

    queries: [Q, D]; gallery: [G, D], or None to search each query among all others.
    ids: [Q], gallery_ids: [G], integers or strings: rows of equal id are the same image and are left
        out. Without a gallery the ids default to the row numbers; with one, None leaves nothing out.

    Returns [Q, depth] int64 rows of the gallery, nearest first, -1 where the gallery has no more.

    The distance is the squared Euclidean one, for unit-norm rows in the order of the inner product. The
    result is exact: FAISS's flat float32 index proposes rows, and where rounding could have swapped
    two of them their distances in float64 decide. Of equal distances the lower row comes first, so
    identical images keep their place. (The authors drop the first neighbour that FAISS gives as "self".)
    Memory is O((Q + G) D + Q depth).

    Raises `ValueError` for empty inputs, lengths that do not match and depth < 1.
    """
    if depth < 1:
        raise ValueError(f"depth must be 1 or more, not {depth}")
    depth = int(depth)
    images = as_images(queries, gallery, gallery_ids, ids)
    different, which = different_rows(images.queries)
    found = _search(different, Index(images.gallery), depth + images.most_copies)
    result = np.full((len(which), depth), -1, dtype=np.int64)
    for chunk in chunks(np.arange(len(which)), found.shape[1]):
        rows = found[which[chunk]]
        itself = images.own[chunk, None] == images.gallery_own[rows]
        rows[itself] = -1
        order = np.argsort(itself, axis=1, kind="stable")[:, :depth]
        result[chunk, : order.shape[1]] = np.take_along_axis(rows, order, axis=1)
    return result


def _search(queries: NDArray[np.float32], index: Index, count: int) -> NDArray[np.int64]:
    """[Q, count], or as many as there are: the nearest rows in the order of (distance, row)."""
    gallery = index.gallery
    count = min(len(gallery), count)
    result = np.empty((len(queries), count), dtype=np.int64)
    width = min(len(gallery), count + SPARE)
    pending = np.arange(len(queries))
    while len(pending):
        unsettled = []
        for chunk in chunks(pending, width):
            approximate, rows, doubt = index.search(queries[chunk], width)
            if width < len(gallery):
                unsettled.append(chunk[~settled(approximate, doubt, count)])
            close = np.diff(approximate, axis=1) <= doubt
            query, rank = np.nonzero(np.pad(close, ((0, 0), (0, 1))) | np.pad(close, ((0, 0), (1, 0))))
            # Rows of one run may change places among themselves, not with any other row.
            run = np.cumsum((np.diff(query, prepend=-1) > 0) | ~close[query, rank - 1])
            row = rows[query, rank]
            order = np.lexsort((row, pair_distances(queries, chunk[query], gallery, row), run))
            rows[query, rank] = row[order]
            result[chunk] = rows[:, :count]
        pending = np.concatenate(unsettled) if unsettled else pending[:0]
        width = min(len(gallery), 4 * width)
    return result


def settled(approximate: NDArray[np.float32], doubt: NDArray[np.float32], count: int) -> NDArray[np.bool_]:
    """[Q]: whether the rows found [Q, width] hold the `count` truly nearest, with all that may tie."""
    sure: NDArray[np.bool_] = approximate[:, count - 1] < approximate[:, -1] - 2 * doubt[:, 0]
    return sure


def different_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The different rows of [N, D], and for each row [N] which of them it is."""
    raw = vectors.view(np.dtype((np.void, vectors.shape[1] * vectors.itemsize)))[:, 0]
    _, first, which = np.unique(raw, return_index=True, return_inverse=True)
    if len(first) == len(vectors):
        return vectors, np.arange(len(vectors))
    return vectors[first], which


def pair_distances(
    queries: NDArray[np.float32],
    query: NDArray[np.int64],
    gallery: NDArray[np.float32],
    row: NDArray[np.int64],
) -> NDArray[np.float64]:
    """[P] squared distances of P pairs in float64, the same for the same two vectors."""
    distances = np.empty(len(row))
    for pairs in chunks(np.arange(len(row)), queries.shape[1], _CACHED):
        difference = np.subtract(gallery[row[pairs]], queries[query[pairs]], dtype=np.float64)
        distances[pairs] = np.einsum("pd,pd->p", difference, difference)
    return distances


def chunks(rows: NDArray[np.int64], width: int, block: int | None = None) -> Iterator[NDArray[np.int64]]:
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
