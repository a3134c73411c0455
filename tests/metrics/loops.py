"""The measures by loops in float64, and embeddings to try them on."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mdprop.metrics import Retrieval, retrieve


def ranked(queries, q, gallery, own):
    """Gallery rows by (distance, row), without those of the query's own image."""
    distance = np.square(np.asarray(gallery, np.float64) - queries[q]).sum(1)
    return [g for g in np.argsort(distance, kind="stable") if not own(q, g)]


def naive_recall(ranking, labels, gallery_labels, k):
    hit = [any(gallery_labels[g] == labels[q] for g in row[:k]) for q, row in enumerate(ranking)]
    return sum(hit) / len(hit)


def naive_map(ranking, labels, gallery_labels, depth):
    scores = []
    for q, row in enumerate(ranking):
        relevant = sum(label == labels[q] for label in gallery_labels)
        found, score = 0, 0.0
        for i, g in enumerate(row[: relevant if depth == "R" else depth], start=1):
            if gallery_labels[g] == labels[q]:
                found += 1
                score += found / i
        scores.append(score / relevant if relevant else 0.0)
    return sum(scores) / len(scores)


def means(found: Retrieval, ks):
    """All that a search gives as numbers, by the names that the gaps have."""
    recall = {f"recall_at_{k}": found.recall(k) for k in ks}
    precision = {f"map_at_{str(depth).lower()}": found.mean_precision(depth) for depth in found.precision}
    return {**recall, **precision, **found.gaps}


def scores(embeddings, labels, ks, depths=("R",), **given):
    return means(retrieve(embeddings, labels, ks, depths, **given), ks)


@st.composite
def labelled(draw, most=25):
    """Embeddings full of identical images, with labels that hold classes of one image."""
    count = draw(st.integers(1, most))
    embeddings = draw(arrays(np.float32, (count, 2), elements=st.integers(-2, 2).map(float)))
    return embeddings, draw(arrays(np.int64, count, elements=st.integers(0, 4)))


def clustered(classes, images, noise, dimension=16, seed=0):
    """Unit vectors around random centres, with their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(classes).repeat(images))
    x = rng.normal(size=(classes, dimension))[labels] + noise * rng.normal(size=(len(labels), dimension))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels
