from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist
from scipy.stats import entropy

from mdprop.metrics import embedding_density, geometry, spectral_decay

seeds = st.integers(0, 2**32 - 1)


def random_set(seed, dimension=5):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.r_[0, 0, 1, 1, 1, rng.integers(0, 6, 20)])
    return rng.normal(size=(len(labels), dimension)) + rng.normal(size=dimension), labels


def test_density_is_the_authors(golden):
    density = embedding_density(golden["features"], golden["labels"])
    assert density == {
        "intra": pytest.approx(float(golden["dists_intra"]), rel=1e-7),
        "inter": pytest.approx(float(golden["dists_inter"]), rel=1e-7),
        "ratio": pytest.approx(float(golden["dists_intra_over_inter"]), rel=1e-7),
    }


@given(seeds)
def test_density_equals_all_pairs(seed):
    embeddings, labels = random_set(seed)
    embeddings = embeddings.astype(np.float32).astype(np.float64)
    classes = [embeddings[labels == c] for c in np.unique(labels)]
    intra = np.mean([pdist(c, "cosine").mean() for c in classes if len(c) > 1])
    inter = pdist([c.mean(0) for c in classes], "cosine").mean()
    expected = {"intra": intra, "inter": inter, "ratio": intra / inter}
    assert embedding_density(embeddings, labels) == pytest.approx(expected, rel=1e-9)


@given(seeds)
def test_density_does_not_depend_on_order_names_or_rotation(seed):
    embeddings, labels = random_set(seed)
    expected = pytest.approx(embedding_density(embeddings, labels), rel=1e-4)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert embedding_density(embeddings[order], labels[order]) == expected
    assert embedding_density(embeddings, 50 - labels) == expected
    assert embedding_density(7 * embeddings @ rotation, labels) == expected


def test_density_at_known_angles():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [-1.0, 0.0]])
    density = embedding_density(x, torch.tensor([0, 0, 1, 1]))
    assert density["intra"] == pytest.approx((1 + 0) / 2)
    assert density["inter"] == pytest.approx(1 + 0.5**0.5)


def test_a_class_of_one_image_stays_out_of_intra():
    x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    density = embedding_density(x, [5, 5, 2])
    assert density["intra"] == pytest.approx(1)
    assert density["inter"] == pytest.approx(1 + 0.5**0.5)


def test_collapsed_and_opposite_embeddings_give_numbers():
    assert embedding_density(np.ones((4, 2)), [0, 0, 1, 1]) == pytest.approx(
        {"intra": 0, "inter": 0, "ratio": 0}, abs=1e-6
    )
    opposite = [[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]  # the first centre is 0
    assert embedding_density(opposite, [0, 0, 1, 1]) == {"intra": 1, "inter": 1, "ratio": 1}
    assert embedding_density([[0.0], [1.0], [1.0]], [0, 0, 1]) == {"intra": 1, "inter": 0, "ratio": 1e8}


@pytest.mark.parametrize("block", [1, 7, 64])
def test_density_is_the_same_block_by_block(monkeypatch, block):
    rng = np.random.default_rng(0)
    embeddings, labels = rng.normal(size=(100, 8)), rng.integers(0, 30, 100)
    whole = embedding_density(embeddings, labels)
    monkeypatch.setattr(geometry, "_BLOCK", block)
    assert embedding_density(embeddings, labels) == whole


def test_density_needs_no_matrix_of_all_pairs():
    embeddings, labels = np.random.default_rng(0).normal(size=(6000, 4)), np.arange(6000) % 2
    tracemalloc.start()
    embedding_density(embeddings, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 3000  # a byte for each pair of one class


@pytest.mark.parametrize("skip", [0, 1, 9])
def test_spectral_decay_is_the_authors(golden, skip):
    value = spectral_decay(golden["features"], skip=skip)
    assert value == pytest.approx(float(golden[f"rho_spectrum_{skip + 1}"]), rel=1e-6)


@given(seeds, st.integers(0, 3))
def test_spectral_decay_equals_scipys_entropy(seed, skip):
    x = np.random.default_rng(seed).normal(size=(20, 6)).astype(np.float32)
    kept = np.linalg.svd(x.astype(np.float64))[1][skip:5]
    expected = entropy(np.full(len(kept), 1 / len(kept)), kept / kept.sum())
    assert spectral_decay(x, skip=skip) == pytest.approx(expected, rel=1e-6, abs=1e-12)


@given(seeds)
def test_spectral_decay_does_not_depend_on_order_scale_or_rotation(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(20, 6))
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    expected = pytest.approx(spectral_decay(x), rel=1e-3, abs=1e-7)
    assert spectral_decay(rng.permutation(x)) == expected
    assert spectral_decay(5 * x @ rotation) == expected


def test_spectral_decay_of_known_spectra():
    assert spectral_decay(torch.eye(6)) == pytest.approx(0, abs=1e-12)
    assert spectral_decay(np.diag([9.0, 1.0, 1.0, 1.0, 0.5])) == pytest.approx(0, abs=1e-12)
    value = spectral_decay(np.diag([9.0, 3.0, 1.0, 0.5]))
    assert value == pytest.approx(0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25))


def test_spectral_decay_by_default_leaves_out_the_largest(golden):
    assert spectral_decay(golden["features"]) == spectral_decay(golden["features"], skip=1)


def test_fewer_images_than_dimensions():
    assert spectral_decay(np.eye(4, 9)) == pytest.approx(0, abs=1e-12)
    assert spectral_decay(np.diag([9.0, 3.0, 1.0]) @ np.eye(3, 9)) == pytest.approx(
        0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    )


def test_an_unused_dimension_gives_a_large_number():
    x = np.random.default_rng(0).normal(size=(50, 6))
    x[:, 4:] = 0
    assert 1 < spectral_decay(x) < 20
    rotated = x @ np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    assert spectral_decay(rotated) == pytest.approx(spectral_decay(x), abs=0.5)


@pytest.mark.parametrize(
    ("embeddings", "labels", "message"),
    [
        (np.empty((0, 2)), [], "embeddings must be .* at least one row"),
        (np.eye(3), [0, 1], "labels has 2 entries for 3 rows"),
        (np.eye(3), [0, 0, 0], "density needs two classes, and a class with two images"),
        (np.eye(3), [0, 1, 2], "density needs two classes, and a class with two images"),
        (np.full((3, 2), np.inf), [0, 0, 1], "embeddings hold NaN or infinite values"),
    ],
)
def test_density_refuses(embeddings, labels, message):
    with pytest.raises(ValueError, match=message):
        embedding_density(embeddings, labels)


@pytest.mark.parametrize(
    ("embeddings", "skip", "message"),
    [
        (np.empty((0, 2)), 1, "embeddings must be .* at least one row"),
        (np.eye(3), -1, "skip must be 0 or more, not -1"),
        (np.eye(3), 2, r"embeddings \[3, 3\] have no spectrum to measure beyond skip=2"),
        (np.ones((5, 1)), 0, r"embeddings \[5, 1\] have no spectrum"),
        (np.zeros((5, 4)), 1, r"embeddings are all zero: the network has collapsed"),
    ],
)
def test_spectral_decay_refuses(embeddings, skip, message):
    with pytest.raises(ValueError, match=message):
        spectral_decay(embeddings, skip=skip)


@pytest.mark.parametrize(("dtype", "power"), [(np.float32, 30), (np.float64, 90)])
def test_rows_of_very_different_lengths_side_by_side(dtype, power):
    vectors, labels = random_set(5)
    lengths = 10.0 ** np.where(np.arange(len(vectors)) % 2, power, -power)[:, None]
    found = embedding_density((vectors * lengths).astype(dtype), labels)["intra"]
    assert found == pytest.approx(embedding_density(vectors, labels)["intra"], rel=1e-4)
