"""Retrieval and embedding-space measures of one model, on clean and on adversarial images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mdprop.data.stores.embeddings import read_embeddings
from mdprop.errors import ResultError
from mdprop.methods import CLEAN, GALLERY
from mdprop.metrics import (
    clustering_scores,
    embedding_density,
    recall_at_k,
    retrieval_scores,
    spectral_decay,
)

MAP_DEPTH = 1000


def evaluate_sets(
    folder: Path, sets: Sequence[str], ks: Sequence[int], seed: int, exact_limit: int | None = None
) -> dict[str, dict[str, float]]:
    """{input set: {metric: value}} from folder/<set>.parquet, for `clean` and the adversarial `sets`.

    Queries search the gallery of a data set that has one, folder/gallery.parquet, else the clean
    images; adversarial ones without their own clean image. The second
    protocol, recall_at_K_all_adversarial, searches each adversarial query among all other
    adversarial images of its set.
    seed: of k-means, and of an approximate search. exact_limit: see `retrieval_scores`.

    Raises `ResultError` for a set that cannot be measured: too small, too few dimensions, not finite.
    """
    clean = read_embeddings(folder / f"{CLEAN}.parquet")
    separate = folder / f"{GALLERY}.parquet"
    ids, labels, gallery = read_embeddings(separate) if separate.exists() else clean
    results: dict[str, dict[str, float]] = {}
    for name in (CLEAN, *sets):
        path = folder / f"{name}.parquet"
        query_ids, query_labels, queries = clean if name == CLEAN else read_embeddings(path)
        try:
            results[name] = _measure(
                queries, query_labels, query_ids, gallery, labels, ids, ks, seed, exact_limit
            )
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
    exact_limit: int | None,
) -> dict[str, float]:
    retrieval = retrieval_scores(
        queries,
        query_labels,
        ks,
        ("R", MAP_DEPTH),
        gallery=gallery,
        gallery_labels=labels,
        gallery_ids=ids,
        ids=query_ids,
        exact_limit=exact_limit,
        seed=seed,
    )
    density = embedding_density(queries, query_labels)
    return {
        **retrieval,
        **clustering_scores(queries, query_labels, seed=seed),
        **{f"density_{key}": value for key, value in density.items()},
        "spectral_decay": spectral_decay(queries),
        "queries": len(queries),
    }
