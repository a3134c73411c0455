"""The search that every retrieval measure is computed from."""

from __future__ import annotations

from collections.abc import Iterator

import faiss
import numpy as np
from numpy.typing import NDArray

from mdprop.metrics._inputs import Array, as_embeddings, as_vector

_SPARE = 16  # rows searched beyond the depth, so that rounding rarely asks for a second search
_BLOCK = 2**20  # numbers in an intermediate array of the search
_CACHED = 2**16  # numbers in one that should stay in the cache


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
    queries = as_embeddings(queries, "queries")
    if gallery is None:
        if gallery_ids is not None:
            raise ValueError("gallery_ids needs a gallery")
        gallery = queries
        ids = gallery_ids = np.arange(len(queries)) if ids is None else ids
    gallery = as_embeddings(gallery, "gallery")
    if gallery.shape[1] != queries.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions and the gallery {gallery.shape[1]}")
    own, gallery_own = _identities(len(queries), len(gallery), gallery_ids, ids)

    different, which = _different_rows(queries)
    found = _search(different, gallery, min(len(gallery), depth + _most_copies(own, gallery_own)))
    result = np.full((len(queries), depth), -1, dtype=np.int64)
    for chunk in _chunks(np.arange(len(queries)), found.shape[1]):
        rows = found[which[chunk]]
        itself = own[chunk, None] == gallery_own[rows]
        rows[itself] = -1
        order = np.argsort(itself, axis=1, kind="stable")[:, :depth]
        result[chunk, : order.shape[1]] = np.take_along_axis(rows, order, axis=1)
    return result


def _search(queries: NDArray[np.float32], gallery: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """[Q, count]: the nearest rows in the order of (distance, row)."""
    centre = gallery.mean(axis=0, dtype=np.float64)  # float32 distances round less around the centre
    moved = (gallery - centre).astype(np.float32)
    index = faiss.IndexFlatL2(gallery.shape[1])
    index.add(moved)
    farthest = np.linalg.norm(moved, axis=1).max()
    result = np.empty((len(queries), count), dtype=np.int64)
    width = min(len(gallery), count + _SPARE)
    pending = np.arange(len(queries))
    while len(pending):
        unsettled = []
        for chunk in _chunks(pending, width):
            moved = (queries[chunk] - centre).astype(np.float32)
            approximate, rows = index.search(moved, width)
            doubt = 2 * _rounding(np.linalg.norm(moved, axis=1) + farthest, moved.shape[1])[:, None]
            distances = approximate.astype(np.float64)
            close = np.diff(distances, axis=1) <= doubt
            query, rank = np.nonzero(np.pad(close, ((0, 0), (0, 1))) | np.pad(close, ((0, 0), (1, 0))))
            distances[query, rank] = _distances(queries, chunk[query], gallery, rows[query, rank])
            order = np.lexsort((rows, distances))[:, :count]
            result[chunk] = np.take_along_axis(rows, order, axis=1)
            if width < len(gallery):
                last = np.take_along_axis(distances, order[:, -1:], axis=1)
                unsettled.append(chunk[(last >= approximate[:, -1:] - doubt)[:, 0]])
        pending = np.concatenate(unsettled) if unsettled else pending[:0]
        width = min(len(gallery), 4 * width)
    return result


def _identities(
    count: int, gallery_count: int, gallery_ids: Array | None, ids: Array | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the images behind queries [Q] and gallery [G]; equal numbers are equal images."""
    if ids is None and gallery_ids is None:
        return np.full(count, -1), np.zeros(gallery_count, dtype=np.int64)
    if ids is None or gallery_ids is None:
        raise ValueError("ids and gallery_ids go together: give both or neither")
    both = [as_vector(ids, count, "ids"), as_vector(gallery_ids, gallery_count, "gallery_ids")]
    numbers = np.unique(np.concatenate(both), return_inverse=True)[1]
    return numbers[:count], numbers[count:]


def _most_copies(own: NDArray[np.int64], gallery_own: NDArray[np.int64]) -> int:
    """The most gallery rows that are left out for one query."""
    present, copies = np.unique(gallery_own, return_counts=True)
    return int(copies[np.isin(present, own)].max(initial=0))


def _different_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The different rows of [N, D], and for each row [N] which of them it is."""
    raw = vectors.view(np.dtype((np.void, vectors.shape[1] * vectors.itemsize)))[:, 0]
    _, first, which = np.unique(raw, return_index=True, return_inverse=True)
    return vectors[first], which


def _rounding(reach: NDArray[np.float32], dimension: int) -> NDArray[np.float64]:
    """How far FAISS's |q|² + |g|² - 2 q·g in float32 can be from the true one, for |q| + |g| ≤ reach.

    Errors of a sum of D terms add up like a random walk, to λ √D u with u = 2^-24 and a chance that
    falls like exp(-λ²/2) (Higham and Mary, 2019); λ = 4 of a bound that is already generous.
    """
    bound: NDArray[np.float64] = (4 * dimension**0.5 + 8) * 2.0**-24 * np.square(reach, dtype=np.float64)
    return bound


def _distances(
    queries: NDArray[np.float32],
    query: NDArray[np.int64],
    gallery: NDArray[np.float32],
    row: NDArray[np.int64],
) -> NDArray[np.float64]:
    """[P] squared distances of P pairs in float64, the same for the same two vectors."""
    distances = np.empty(len(row))
    for pairs in _chunks(np.arange(len(row)), queries.shape[1], _CACHED):
        difference = np.subtract(gallery[row[pairs]], queries[query[pairs]], dtype=np.float64)
        distances[pairs] = np.einsum("pd,pd->p", difference, difference)
    return distances


def _chunks(rows: NDArray[np.int64], width: int, block: int = _BLOCK) -> Iterator[NDArray[np.int64]]:
    """Pieces of `rows` whose matrices of that width hold at most `block` numbers, or one row."""
    size = max(1, block // width)
    return (rows[start : start + size] for start in range(0, len(rows), size))
