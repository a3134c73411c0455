"""How well k-means finds the classes: normalised mutual information and pairwise F1."""

from __future__ import annotations

import faiss
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import normalized_mutual_info_score
from sklearn.metrics.cluster import pair_confusion_matrix

from mdprop.arrays import Array, Floats, as_embeddings, as_labels, in_range
from mdprop.metrics.index import LIFT, matrix_products

_ITERATIONS = 20  # the authors'
_SHIFTED = 2.0**-10  # of the mean squared norm: a spread below it would drown in float32


def clustering_scores(embeddings: Array, labels: Array, *, seed: int) -> dict[str, float]:
    """NMI and F1 of k-means with as many clusters as there are classes.

    embeddings: [N, D]; labels: [N] integers; seed: of the first centroids.
    Returns {"nmi", "f1"}, see `nmi_f1`; the same for the same seed. (The authors leave FAISS's fixed
    seed, so that all their runs share one draw.) Neither a factor nor an offset common to all embeddings
    changes them; differences below 1e-25 of the largest number count as none.
    """
    vectors = as_embeddings(embeddings)
    labels = as_labels(labels, len(vectors))
    clusters = _kmeans(_rounded(vectors), len(np.unique(labels)), seed)
    return nmi_f1(clusters, labels)


def nmi_f1(
    cluster_ids: Array, labels: Array, embeddings: Array | None = None, centroids: Array | None = None
) -> dict[str, float]:
    """NMI and F1 of given clusters.

    cluster_ids: [N], labels: [N], integers.
    Returns {"nmi", "f1"}, both in [0, 1].

    nmi: mutual information over the arithmetic mean of the two entropies.
    f1: the harmonic mean of precision and recall over pairs of images, where a pair is predicted when
    its images share a cluster, and true when they share a class; 1 where neither side has any pair.

    embeddings [N, D] and centroids [C, D] change nothing: the authors' F1 takes them to name each
    cluster after the image nearest its centroid, and no count of pairs depends on the names.
    Raises `ValueError` for empty inputs and lengths that do not match.
    """
    labels = as_labels(labels)
    clusters = as_labels(cluster_ids, len(labels), "cluster_ids")
    (_, false_pairs), (missed_pairs, true_pairs) = pair_confusion_matrix(labels, clusters)
    pairs = 2 * true_pairs + false_pairs + missed_pairs
    return {
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "f1": float(2 * true_pairs / pairs) if pairs else 1.0,
    }


def _rounded(vectors: Floats) -> NDArray[np.float32]:
    """[N, D] as float32, at a scale and, where what they share is much larger than what they differ by, an
    origin that k-means in float32 can work with; neither changes a cluster."""
    (vectors,) = in_range(vectors)
    mean = vectors.mean(axis=0, dtype=np.float64)
    square = np.einsum("nd,nd->", vectors, vectors, dtype=np.float64) / len(vectors)
    if square - mean @ mean < _SHIFTED * square:
        (vectors,) = in_range(vectors - mean)
    return vectors.astype(np.float32) * LIFT


@matrix_products()
def _kmeans(embeddings: NDArray[np.float32], clusters: int, seed: int) -> NDArray[np.int64]:
    """[N] cluster numbers; every image takes part, however few there are for a cluster."""
    kmeans = faiss.Kmeans(
        embeddings.shape[1],
        clusters,
        niter=_ITERATIONS,
        seed=int(seed) % 2**31,
        min_points_per_centroid=1,
        max_points_per_centroid=len(embeddings),
    )
    kmeans.train(embeddings)
    return kmeans.index.search(embeddings, 1)[1][:, 0]
