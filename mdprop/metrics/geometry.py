"""The shape of the embedding space: density of the classes, decay of the spectrum."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mdprop.arrays import Array, as_embeddings, as_labels, in_range

Matrix = NDArray[np.float64]
_BLOCK = 4096  # rows in float64 at once

COLLAPSED = 0.02
"""A mean cosine distance of 0.02 is a distance of 0.2 (root mean square) between two images. An attack
that moves every image into another's place then still scores 90 of the 100 points for embedding shift."""


def embedding_density(embeddings: Array, labels: Array) -> dict[str, float]:
    """Mean cosine distances within and between classes.

    embeddings: [N, D]; labels: [N] integers.
    Returns {"intra", "inter", "ratio"}:
    intra: mean over the classes of the mean cosine distance between two different images of one;
    inter: mean cosine distance between the centres of two different classes, a centre being the mean of
    the class's embeddings; ratio: intra / inter, an inter below 1e-8 taken as 1e-8.

    A class of one image has no distance and stays out of intra. (The authors give it the larger of the
    first two classes' values.) A vector of zeros has a cosine of 0 to everything. O(N D): the sum over all
    pairs follows from the sum of the vectors.

    Raises `ValueError` for empty inputs, lengths that do not match, fewer than two classes, and when no
    class has two images.
    """
    (vectors,) = in_range(as_embeddings(embeddings))
    labels = as_labels(labels, len(vectors))
    order = np.argsort(labels, kind="stable")
    _, counts = np.unique(labels, return_counts=True)
    if len(counts) < 2 or counts.max() < 2:
        raise ValueError("density needs two classes, and a class with two images")

    centres = np.empty((len(counts), vectors.shape[1]))
    intra = np.full(len(counts), np.nan)
    for classes, rows in _blocks(counts):
        block = vectors[order[rows]].astype(np.float64)
        sizes = counts[classes]
        starts = np.cumsum(sizes) - sizes
        centres[classes] = np.add.reduceat(block, starts)
        block = _unit(block)
        squares = np.add.reduceat(np.square(block).sum(1), starts)
        several = sizes > 1
        sums = np.add.reduceat(block, starts)[several]
        intra[classes][several] = 1 - _mean_product(sums, squares[several], sizes[several])
    centres = _unit(centres)
    inter = 1 - _mean_product(centres.sum(0)[None], np.square(centres).sum()[None], np.array([len(centres)]))
    mean = np.nanmean(intra)
    return {"intra": float(mean), "inter": float(inter[0]), "ratio": float(mean / max(inter[0], 1e-8))}


def _blocks(counts: NDArray[np.int64]) -> Iterator[tuple[slice, slice]]:
    """Slices of the classes, and of rows sorted by class: some `_BLOCK` rows or one class at a time."""
    ends = np.cumsum(counts)
    first, row = 0, 0
    while first < len(counts):
        last = max(first + 1, int(np.searchsorted(ends, row + _BLOCK, side="right")))
        yield slice(first, last), slice(row, int(ends[last - 1]))
        first, row = last, int(ends[last - 1])


def spectral_decay(embeddings: Array, *, skip: int = 1) -> float:
    """KL divergence of the normalised singular values of the embeddings [N, D] from uniform, in nats.

    0 is a flat spectrum. The `skip` largest values are left out: skip=1 is the authors'
    rho_spectrum@2, skip=0 their rho_spectrum@1. Of min(N, D) values the D-th is left out too, as in
    theirs, which take D - 1 of them. Values are floored at float32's precision times the largest, so
    that a dimension that nothing uses gives a large number, not infinity or noise.

    Raises `ValueError` for empty or all-zero inputs and when nothing is left of the spectrum.
    """
    (vectors,) = in_range(as_embeddings(embeddings))
    if skip < 0:
        raise ValueError(f"skip must be 0 or more, not {skip}")
    values = np.linalg.svd(vectors.astype(np.float64), compute_uv=False)[: vectors.shape[1] - 1]
    if not vectors.any():
        raise ValueError("embeddings are all zero: the network has collapsed")
    if len(values) <= skip:
        raise ValueError(f"embeddings {list(vectors.shape)} have no spectrum to measure beyond skip={skip}")
    kept = np.maximum(values, values[0] * np.finfo(np.float32).eps)[skip:]
    return float(np.log(kept.mean()) - np.log(kept).mean())


def spread(embeddings: Array) -> float:
    """The mean cosine distance of two different images: [N, D] -> 0 (all alike) to about 1.

    A vector of zeros is at a distance of 0 from another one, and of 1 from all else. Raises `ValueError`
    for fewer than two images, and for values that are not finite.
    """
    vectors = as_embeddings(embeddings).astype(np.float64)
    count = len(vectors)
    if count < 2:
        raise ValueError("the spread of embeddings needs two images, not 1")
    vectors = _unit(vectors)
    zeros = count - np.count_nonzero(vectors.any(axis=1))
    products = np.square(vectors.sum(0)).sum() - np.square(vectors).sum() + zeros * (zeros - 1)
    return float(1 - products / (count * (count - 1)))


def _unit(vectors: Matrix) -> Matrix:
    """Rows [N, D] divided by their norm, whatever its magnitude; a row of zeros stays."""
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    vectors = np.ldexp(vectors, -np.frexp(largest)[1])
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(norms > 0, norms, 1)


def _mean_product(sums: Matrix, squares: Matrix, counts: NDArray[np.int64]) -> Matrix:
    """Mean inner product of two different vectors of each group.

    sums: [C, D] of the vectors of a group; squares: [C], sum of their squared norms; counts: [C].
    """
    products: Matrix = (np.square(sums).sum(1) - squares) / (counts * (counts - 1))
    return products
