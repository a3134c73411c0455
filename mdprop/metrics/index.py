"""FAISS indexes of a gallery: all of it searched, or only the nearest cells of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mdprop.arrays import Floats

_GPU_WIDTH = 2048  # the most neighbours that FAISS finds on a GPU
_TRAINED_ON = 64  # vectors a cell that k-means sees
_ITERATIONS = 10
_PIECE = 2**16  # rows added at once
_SAMPLE = 1024  # rows that the centre is found from
LIFT = np.float32(2**20)
"""What FAISS is given is larger by it, so that squares of small numbers beside large ones stay above 0."""

_TINY = float(np.finfo(np.float32).tiny)  # smaller numbers have fewer digits, or none


@contextmanager
def matrix_products() -> Iterator[None]:
    """FAISS searches by matrix products inside; around it its own setting stays.

    FAISS 1.15 leaves fewer queries than 128,000 / D to a loop that is up to ten times as slow as its
    matrix product; this is the limit that its developers propose since (pull request 5109).
    """
    theirs = faiss.cvar.distance_compute_blas_threshold
    faiss.cvar.distance_compute_blas_threshold = min(theirs, 800 * faiss.omp_get_max_threads())
    try:
        yield
    finally:
        faiss.cvar.distance_compute_blas_threshold = theirs


class Index:
    """Squared Euclidean search in float32, around the middle of the gallery, where less is rounded away.

    gallery: [G, D], `in_range`; its middle is a median, which no outlier moves. cells: None for FAISS's
    flat index, which looks at every row; a number for its IVF index, which looks at the rows of the
    `effort` cells nearest to the query, of so many that k-means makes with the `seed`. Both are spread
    over the GPUs that FAISS can see.
    """

    @matrix_products()
    def __init__(self, gallery: Floats, *, cells: int | None = None, seed: int = 0) -> None:
        self.size, dimension = gallery.shape
        self.cells = cells or 1
        centre: Any = np.median(gallery[:: -(-self.size // _SAMPLE)], axis=0)
        self._centre = centre.astype(gallery.dtype)
        self._cpu: Any = faiss.IndexFlatL2(dimension)
        if cells is not None:
            self._cpu = faiss.IndexIVFFlat(self._cpu, dimension, cells)
            self._cpu.cp.seed, self._cpu.cp.niter = int(seed) % 2**31, _ITERATIONS
            self._cpu.cp.max_points_per_centroid = _TRAINED_ON
            self._cpu.cp.min_points_per_centroid = 1
            rows = np.random.default_rng(seed).permutation(len(gallery))[: _TRAINED_ON * cells]
            self._cpu.train(self._moved(gallery[np.sort(rows)]))
        self._farthest = np.float32(0)
        for start in range(0, len(gallery), _PIECE):
            moved = self._moved(gallery[start : start + _PIECE])
            self._farthest = max(self._farthest, _norms(moved).max())
            self._cpu.add(moved)
        self._gpu = faiss.index_cpu_to_all_gpus(self._cpu) if faiss.get_num_gpus() else None

    def set_effort(self, effort: int) -> None:
        """How many cells a search of an inexact index looks at, at most `cells`."""
        for index in (self._cpu, self._gpu):
            if index is not None:
                faiss.ParameterSpace().set_index_parameter(index, "nprobe", min(effort, self.cells))

    def _moved(self, vectors: Floats) -> NDArray[np.float32]:
        moved = (vectors - self._centre).astype(np.float32, copy=False)
        moved *= LIFT
        return moved

    @matrix_products()
    def search(
        self, queries: Floats, width: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """The `width` nearest rows of each query [Q, D], as far as float32 can tell.

        Returns their squared distances [Q, width], times LIFT², nearest first; the rows, -1 where an
        inexact index found no more; and for each query [Q, 1] a difference of distances that rounding does
        not reach.
        """
        moved = self._moved(queries)
        index = self._cpu if self._gpu is None or width > _GPU_WIDTH else self._gpu
        distances, rows = index.search(moved, width)
        norms = _norms(moved)
        # No row beyond 3 |q| + the last distance found can be nearer than those found.
        reach = np.minimum(norms + self._farthest, 3 * norms + np.sqrt(distances[:, -1].clip(0)))
        doubt = 2 * rounding(reach, moved.shape[1])
        return distances, rows, doubt.astype(np.float32)[:, None]


def rounding(reach: NDArray[np.float32], dimension: int) -> NDArray[np.float64]:
    """How far FAISS's |q|² + |g|² - 2 q·g in float32 can be from the true one, for |q| + |g| ≤ reach.

    Errors of a sum of D terms add up like a random walk, to λ √D u with u = 2^-24 and a chance that
    falls like exp(-λ²/2) (Higham and Mary, 2019); λ = 4 of a bound that is already generous. Products that
    are too small for float32 may each be lost.
    """
    bound: NDArray[np.float64] = (4 * dimension**0.5 + 8) * 2.0**-24 * np.square(reach, dtype=np.float64)
    return bound + 4 * dimension * _TINY


def _norms(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    norms: NDArray[np.float32] = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return norms
