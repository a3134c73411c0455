"""Retrieval and embedding-space measures of one model, on clean and on adversarial images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdprop.data.embeddings import read_embeddings
from mdprop.distributions import CLEAN
from mdprop.errors import ResultError
from mdprop.metrics import (
    Depth,
    class_sizes,
    clustering_scores,
    embedding_density,
    map_from_neighbours,
    nearest_neighbours,
    recall_at_k,
    recall_from_neighbours,
    spectral_decay,
)

MAP_DEPTH = 1000


def evaluate_sets(
    folder: Path, sets: Sequence[str], ks: Sequence[int], seed: int
) -> dict[str, dict[str, float]]:
    """{input set: {metric: value}} from folder/<set>.parquet, for `clean` and the adversarial `sets`.

    Adversarial queries search the clean gallery, without their own clean image. The second
    protocol, recall_at_K_all_adversarial, searches each adversarial query among all other
    adversarial images of its set.
    seed: of k-means.

    Raises `ResultError` for a set that cannot be measured: too small, too few dimensions, not finite.
    """
    clean = ids, labels, gallery = read_embeddings(folder / f"{CLEAN}.parquet")
    results: dict[str, dict[str, float]] = {}
    for name in (CLEAN, *sets):
        path = folder / f"{name}.parquet"
        query_ids, query_labels, queries = clean if name == CLEAN else read_embeddings(path)
        try:
            results[name] = _measure(queries, query_labels, query_ids, gallery, labels, ids, ks, seed)
            among = {} if name == CLEAN else recall_at_k(queries, query_labels, ks)
        except ValueError as error:
            causes = "too few adversary.queries, model.embedding_dim below 3, or a training that diverged"
            raise ResultError(f"{path} cannot be measured: {error} ({causes})") from None
        results[name] |= {f"recall_at_{k}_all_adversarial": value for k, value in among.items()}
    return results


def _measure(
    queries: NDArray[np.float32],
    query_labels: NDArray[np.int64],
    query_ids: NDArray[np.int64],
    gallery: NDArray[np.float32],
    labels: NDArray[np.int64],
    ids: NDArray[np.int64],
    ks: Sequence[int],
    seed: int,
) -> dict[str, float]:
    depth = max(*ks, MAP_DEPTH, int(class_sizes(query_labels, labels).max()))
    neighbours = nearest_neighbours(queries, depth, gallery=gallery, gallery_ids=ids, ids=query_ids)
    recalls = recall_from_neighbours(neighbours, query_labels, ks, gallery_labels=labels)
    depths: dict[str, Depth] = {"r": "R", str(MAP_DEPTH): MAP_DEPTH}
    precision = {
        f"map_at_{name}": map_from_neighbours(neighbours, query_labels, depth=d, gallery_labels=labels)
        for name, d in depths.items()
    }
    density = embedding_density(queries, query_labels)
    return {
        **{f"recall_at_{k}": value for k, value in recalls.items()},
        **precision,
        **clustering_scores(queries, query_labels, seed=seed),
        **{f"density_{key}": value for key, value in density.items()},
        "spectral_decay": spectral_decay(queries),
        "queries": len(queries),
    }
