from __future__ import annotations

from itertools import combinations

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from mdprop.metrics import clustering_scores, nmi_f1

partitions = st.integers(1, 20).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 4), min_size=n, max_size=n)] * 2)
)


def blobs(classes, images, spread, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(classes).repeat(images)
    x = rng.normal(size=(classes, 16))[labels] + spread * rng.normal(size=(len(labels), 16))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def test_given_clusters_score_as_the_authors(golden):
    for extra in ((), (golden["features"], golden["centroids"])):
        scores = nmi_f1(golden["cluster_labels"], golden["labels"], *extra)
        assert scores["nmi"] == pytest.approx(float(golden["nmi"]), rel=1e-12)
        assert scores["f1"] == pytest.approx(float(golden["f1"]), rel=1e-12)


@given(partitions)
def test_f1_equals_a_count_of_pairs(partition):
    clusters, labels = partition
    predicted = {(i, j) for i, j in combinations(range(len(labels)), 2) if clusters[i] == clusters[j]}
    true = {(i, j) for i, j in combinations(range(len(labels)), 2) if labels[i] == labels[j]}
    expected = 2 * len(predicted & true) / (len(predicted) + len(true)) if predicted or true else 1.0
    assert nmi_f1(clusters, labels)["f1"] == pytest.approx(expected)


@given(partitions)
def test_nmi_equals_its_definition(partition):
    clusters, labels = partition

    def entropy(values):
        share = np.unique(values, axis=0, return_counts=True)[1] / len(labels)
        return -np.sum(share * np.log(share))

    a, b, joint = entropy(clusters), entropy(labels), entropy(np.stack(partition, axis=1))
    expected = (a + b - joint) / ((a + b) / 2) if a + b > 1e-12 else 1.0
    assert nmi_f1(clusters, labels)["nmi"] == pytest.approx(expected, abs=1e-9)


@given(partitions, st.permutations(range(5)))
def test_names_of_clusters_do_not_matter(partition, names):
    clusters, labels = partition
    assert nmi_f1([names[c] for c in clusters], labels) == pytest.approx(nmi_f1(clusters, labels))


def test_kmeans_finds_what_is_apart():
    embeddings, labels = blobs(2, 30, 0.02)
    assert clustering_scores(embeddings, labels, seed=0) == pytest.approx({"nmi": 1.0, "f1": 1.0})


def test_kmeans_is_as_good_as_sklearns():
    embeddings, labels = blobs(20, 25, 0.7)
    ours = [clustering_scores(embeddings, labels, seed=s) for s in range(5)]
    peer = [
        nmi_f1(
            KMeans(20, init="random", n_init=1, max_iter=20, random_state=s).fit_predict(embeddings), labels
        )
        for s in range(5)
    ]
    for name, tolerance in (("nmi", 0.05), ("f1", 0.1)):
        mean = np.mean([scores[name] for scores in ours])
        assert mean == pytest.approx(np.mean([scores[name] for scores in peer]), abs=tolerance)
        assert 0.2 < mean < 1


def test_the_seed_decides():
    embeddings, labels = blobs(20, 10, 1.0)
    scores = [clustering_scores(embeddings, labels, seed=s) for s in (1, 1, 2, 2**32 - 1)]
    assert scores[0] == scores[1]
    assert scores[0] != scores[2]
    assert scores[0] != scores[3]


def test_threads_do_not_matter():
    embeddings, labels = blobs(20, 10, 1.0)
    threads = faiss.omp_get_max_threads()
    try:
        scores = []
        for count in (1, 3):
            faiss.omp_set_num_threads(count)
            scores.append(clustering_scores(embeddings, labels, seed=0))
    finally:
        faiss.omp_set_num_threads(threads)
    assert scores[0] == scores[1]


@pytest.mark.parametrize("images", [1, 2, 600])
def test_few_or_many_images_of_a_class_pass_in_silence(images, capfd):
    embeddings, labels = blobs(5, images, 0.1)
    scores = clustering_scores(torch.tensor(embeddings), torch.tensor(labels), seed=0)
    assert 0 <= scores["f1"] <= 1
    assert capfd.readouterr() == ("", "")


def test_every_image_takes_part():
    """FAISS trains on a sample of 256 images for each cluster unless told otherwise."""
    embeddings = blobs(1, 1200, 0.01)[0]
    embeddings[700] *= -1
    labels = np.arange(1200) == 700
    for seed in range(6):
        assert clustering_scores(embeddings, labels, seed=seed) == pytest.approx({"nmi": 1.0, "f1": 1.0})


def test_one_class():
    assert clustering_scores(np.eye(4), [7] * 4, seed=0) == {"nmi": 1.0, "f1": 1.0}


def test_a_class_for_every_image():
    assert clustering_scores(np.eye(4), [0, 1, 2, 3], seed=0) == pytest.approx({"nmi": 1.0, "f1": 1.0})


def test_identical_images_can_not_be_told_apart():
    scores = clustering_scores(np.ones((40, 3)), np.arange(4).repeat(10), seed=0)
    assert scores["nmi"] == pytest.approx(0, abs=1e-9)
    assert scores["f1"] == pytest.approx(2 * 180 / (180 + 780))


def test_refuses():
    with pytest.raises(ValueError, match="cluster_ids has 2 entries for 3 rows"):
        nmi_f1([0, 1], [0, 1, 1])
    with pytest.raises(ValueError, match=r"labels must be .* at least one entry"):
        nmi_f1([], [])
    with pytest.raises(ValueError, match="cluster_ids must be integers, not float64"):
        nmi_f1([0.5, 1.0], [0, 1])
    with pytest.raises(ValueError, match=r"embeddings must be .* at least one row"):
        clustering_scores(np.empty((0, 3)), [], seed=0)
    with pytest.raises(ValueError, match="labels has 2 entries for 3 rows"):
        clustering_scores(np.eye(3), [0, 1], seed=0)
