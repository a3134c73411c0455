"""No measure depends on the scale of the embeddings, and what offsets leave of their digits counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors

from mdprop.arrays import as_embeddings, in_range
from mdprop.metrics import (
    clustering_scores,
    embedding_density,
    nearest_neighbours,
    recall_at_k,
    retrieve,
    spectral_decay,
)
from mdprop.metrics.geometry import spread
from tests.metrics.loops import clustered, labelled, naive_map, naive_recall, ranked

SCALES = {np.float32: [1e-38, 1e-30, 1e-19, 1e19, 1e30, 1e38], np.float64: [1e-300, 1e-30, 1e30, 1e300]}
CASES = [(dtype, scale) for dtype, scales in SCALES.items() for scale in scales]
POINTS, LABELS = clustered(20, 10, 0.9, seed=1)


def measures(x, labels):
    found = retrieve(x, labels, [1, 2, 4], ("R", 7))
    return {
        **{f"recall {k}": found.recall(k) for k in (1, 2, 4)},
        **{f"map {depth}": found.mean_precision(depth) for depth in ("R", 7)},
        **clustering_scores(x, labels, seed=0),
        **embedding_density(x, labels),
        "decay": spectral_decay(x),
        "spread": spread(x),
    }


@pytest.mark.parametrize(("dtype", "scale"), CASES)
def test_a_factor_changes_nothing(dtype, scale):
    expected = measures(POINTS.astype(dtype), LABELS)
    found = measures((POINTS * np.float64(scale)).astype(dtype), LABELS)
    assert 0.3 < expected["recall 1"] < 0.9 and 0.2 < expected["f1"] < 0.8
    assert found == pytest.approx(expected, rel=1e-6)


@given(st.integers(-100, 100))
def test_a_power_of_two_changes_no_bit(power):
    scaled = np.ldexp(POINTS[:60], power).astype(np.float32)
    assert np.array_equal(np.ldexp(scaled.astype(np.float64), -power), POINTS[:60])
    found = [retrieve(x, LABELS[:60], [1], ("R", 9)) for x in (scaled, POINTS[:60])]
    for name in ("nearest", "rank"):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name))
    for measure in (embedding_density, lambda x, y: clustering_scores(x, y, seed=3)):
        assert measure(scaled, LABELS[:60]) == measure(POINTS[:60], LABELS[:60])


@given(labelled(), st.sampled_from([2.0**-140, 1e-30, 1e30, 1e37]), st.sampled_from([np.float32, np.float64]))
def test_ties_and_identical_images_are_as_in_a_loop_at_any_scale(given_, scale, dtype):
    x, labels = given_
    scaled = (x.astype(np.float64) * scale).astype(dtype)
    ranking = [ranked(x, q, x, lambda q, g: q == g) for q in range(len(x))]
    found = retrieve(scaled, labels, [1, 2], ("R",))
    for k in (1, 2):
        assert found.recall(k) == naive_recall(ranking, labels, labels, k)
    assert found.mean_precision("R") == pytest.approx(naive_map(ranking, labels, labels, "R"))


@given(arrays(np.float64, (30, 4), elements=st.floats(-1, 1)), st.integers(-900, 900), st.integers(1, 10))
def test_float64_is_searched_in_float64(x, power, depth):
    """Differences of 1e-16 count where float32 would see none."""
    x = np.ldexp(np.round(x, 2) * 1e-14 + 1, power)
    expected = [ranked(np.ldexp(x, -power), q, np.ldexp(x, -power), lambda q, g: q == g) for q in range(30)]
    np.testing.assert_array_equal(nearest_neighbours(x, depth), [row[:depth] for row in expected])


@pytest.mark.parametrize("tiny", [np.float32(1e-45), np.float64(5e-324)])
def test_the_smallest_numbers_there_are(tiny):
    steps = np.array([[0], [1], [3], [6], [10]])
    found = nearest_neighbours((steps * tiny).astype(tiny.dtype), 4)
    assert found.tolist() == nearest_neighbours(steps, 4).tolist()
    assert recall_at_k(steps * tiny, [0, 0, 1, 2, 2], [1]) == {1: 3 / 5}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_numbers_there_are(dtype):
    most = np.finfo(dtype).max
    x = np.array([[most, most], [0.9 * most, most], [-most, -most], [-most, -0.7 * most]], dtype)
    labels = [0, 0, 1, 1]
    assert nearest_neighbours(x, 1)[:, 0].tolist() == [1, 0, 3, 2]
    assert clustering_scores(x, labels, seed=0) == {"nmi": 1, "f1": 1}
    assert embedding_density(x, labels) == pytest.approx(embedding_density(x / most, labels))
    assert spread(x) == pytest.approx(spread(x / most))
    assert spectral_decay(np.c_[x, x[:, ::-1]]) == pytest.approx(
        spectral_decay(np.c_[x, x[:, ::-1]] / most), rel=1e-6
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decades", [10, 35])
def test_rows_of_very_different_sizes(dtype, decades):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 8)) * 10.0 ** rng.uniform(-decades, decades, size=(150, 1))
    x = x.astype(dtype)
    found = nearest_neighbours(x, 20)
    for q, row in enumerate(x.astype(np.float64)):
        distances = np.square(x - row).sum(1)
        nearest = np.sort(np.delete(distances, q))[:20]
        np.testing.assert_allclose(distances[found[q]], nearest, rtol=1e-12)
        assert len({q, *found[q]}) == 21


def test_one_huge_row_hides_no_other():
    x, labels = np.concatenate([1e25 * POINTS[:1], POINTS[1:]]), LABELS
    nearest = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(POINTS[1:].astype(np.float64))
    rows = nearest.kneighbors(return_distance=False) + 1
    np.testing.assert_array_equal(nearest_neighbours(x, 3)[1:], rows)
    others = clustering_scores(POINTS[1:], labels[1:], seed=0)
    assert clustering_scores(x, labels, seed=0)["nmi"] == pytest.approx(others["nmi"], abs=0.05)


@pytest.mark.parametrize("offset", [1e3, 1e6, 1e9])
def test_an_offset_of_float64_changes_no_neighbour_and_no_cluster(offset):
    labels, moved = LABELS, POINTS.astype(np.float64) + offset
    assert retrieve(moved, labels, [1, 2]).rank.tolist() == retrieve(POINTS, labels, [1, 2]).rank.tolist()
    expected = clustering_scores(POINTS, labels, seed=0)
    assert clustering_scores(moved, labels, seed=0) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("offset", [1e3, 1e6])
def test_what_an_offset_leaves_of_float32_is_found(offset):
    """Squares of 1e6 leave float32 no digit for differences of 1: |q|² + |g|² - 2 q·g is noise."""
    x, labels = clustered(12, 12, 0.1, seed=2)
    moved = (20 * x.astype(np.float64) + offset).astype(np.float32)
    distances = pairwise_distances(moved.astype(np.float64) - offset)
    np.fill_diagonal(distances, np.inf)
    expected = np.mean(labels[distances.argmin(1)] == labels)
    assert recall_at_k(moved, labels, [1])[1] == pytest.approx(expected, abs=1e-9)
    assert clustering_scores(moved, labels, seed=0)["nmi"] > 0.9


def test_usual_embeddings_are_not_copied():
    assert as_embeddings(POINTS) is POINTS
    assert in_range(POINTS)[0] is POINTS
    zeros = np.zeros((3, 2), np.float32)
    assert in_range(zeros)[0] is zeros


def test_matrices_keep_their_proportion():
    small, large = in_range(np.full((1, 2), 1e-30, np.float32), np.full((1, 2), 1e30, np.float32))
    assert small.dtype == large.dtype == np.float64
    assert small[0, 0] / large[0, 0] == pytest.approx(1e-60)
    assert 2.0**19 <= large[0, 0] <= 2.0**20


def test_what_is_given_is_left_alone():
    x = (POINTS * np.float32(1e30)).copy()
    before = x.copy()
    measures(x, LABELS)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize(
    ("given_", "dtype"),
    [
        (POINTS.astype(np.float16), np.float32),
        (torch.from_numpy(POINTS).bfloat16(), np.float32),
        (torch.from_numpy(POINTS).requires_grad_(), np.float32),
        (torch.from_numpy(POINTS).double(), np.float64),
        (torch.ones(2, 2, dtype=torch.int64), np.float64),
        (np.ones((2, 2), np.uint8), np.float32),
        ([[0.1, 0.2]], np.float64),
        (np.ones((2, 2), bool), np.float32),
    ],
)
def test_numbers_keep_their_digits(given_, dtype):
    assert as_embeddings(given_).dtype == dtype


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        (np.ones((2, 2), complex), "x must be real numbers, not complex128"),
        ([["a", "b"]], "x must be real numbers, not <U1"),
        ([[10**400, 1]], "x must be real numbers, not object"),
        (np.full((2, 2), np.longdouble("1e4000")), "x hold NaN or infinite values"),
        (np.full((2, 2), np.nan), "x hold NaN or infinite values"),
    ],
)
def test_what_is_no_number_is_refused(given_, message):
    with pytest.raises(ValueError, match=message):
        as_embeddings(given_, "x")


def test_identical_images_take_as_many_searches_as_others(monkeypatch):
    from mdprop.metrics.index import Index

    searched = []
    search = Index.search
    monkeypatch.setattr(
        Index, "search", lambda self, q, width: searched.append((len(q), width)) or search(self, q, width)
    )
    x = np.repeat(POINTS[:1], 600, axis=0)
    retrieve(x, np.arange(600) // 4, [1, 2], ("R",))
    assert sum(count for count, _ in searched) == 600
    assert max(width for _, width in searched) < 40


def test_zeros_are_alike_and_apart_from_all_else():
    assert spread(np.zeros((5, 3))) == 0
    assert spread([[0, 0], [0, 0], [0, 0], [1, 0]]) == pytest.approx(1 / 2)
    assert spread([[0, 0], [1, 0]]) == 1
    assert spread([[0, 0], [0, 0], [1, 0], [0, 1]]) == pytest.approx(5 / 6)


@pytest.mark.parametrize("size", [1e-45, 1e-30, 1.0, 1e30])
def test_all_alike_is_a_spread_of_nothing(size):
    assert spread(np.full((50, 3), size, np.float32)) == pytest.approx(0, abs=1e-12)
