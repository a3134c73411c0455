from __future__ import annotations

import tracemalloc

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mdprop.metrics import nearest_neighbours
from mdprop.metrics.index import rounding


def brute_force(queries, depth, gallery=None, gallery_ids=None, ids=None):
    """All distances in a loop, sorted by (distance, row)."""
    if gallery is None:
        gallery = queries
        ids = gallery_ids = range(len(queries)) if ids is None else ids
    queries, gallery = np.asarray(queries, np.float64), np.asarray(gallery, np.float64)
    result = np.full((len(queries), depth), -1)
    for q, query in enumerate(queries):
        others = [
            (float(np.sum((row - query) ** 2)), g)
            for g, row in enumerate(gallery)
            if ids is None or ids[q] != gallery_ids[g]
        ]
        nearest = [g for _, g in sorted(others)[:depth]]
        result[q, : len(nearest)] = nearest
    return result


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def coarse(rows):
    """Whole numbers from a small range: full of identical images and of equal distances."""
    return arrays(np.float32, st.tuples(rows, st.just(3)), elements=st.integers(-1, 1).map(float))


@given(coarse(st.integers(1, 40)), st.integers(1, 45))
def test_equals_brute_force_with_identical_images_and_ties(embeddings, depth):
    np.testing.assert_array_equal(nearest_neighbours(embeddings, depth), brute_force(embeddings, depth))


@given(coarse(st.integers(1, 12)), coarse(st.integers(1, 40)), st.integers(1, 45), st.data())
def test_equals_brute_force_with_a_gallery(queries, gallery, depth, data):
    def draw(count):
        return data.draw(st.lists(st.integers(0, 8), min_size=count, max_size=count))

    ids, gallery_ids = draw(len(queries)), draw(len(gallery))
    found = nearest_neighbours(queries, depth, gallery=gallery, gallery_ids=gallery_ids, ids=ids)
    np.testing.assert_array_equal(found, brute_force(queries, depth, gallery, gallery_ids, ids))
    found = nearest_neighbours(queries, depth, gallery=gallery)
    np.testing.assert_array_equal(found, brute_force(queries, depth, gallery))


@pytest.mark.parametrize("depth", [5, 150])  # FAISS keeps the best in a heap, from 100 on in a reservoir
@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6])
def test_equals_brute_force_on_unit_vectors(depth, spread):
    rng = np.random.default_rng(0)
    embeddings = unit(np.ones(16) + spread * rng.normal(size=(400, 16)))
    embeddings[200:260] = embeddings[:60]
    np.testing.assert_array_equal(nearest_neighbours(embeddings, depth), brute_force(embeddings, depth))


def test_the_query_is_left_out_among_more_copies_than_are_asked_for():
    embeddings = np.tile(unit(np.random.default_rng(0).normal(size=(1, 8))), (100, 1))
    found = nearest_neighbours(embeddings, 3)
    assert found[0].tolist() == [1, 2, 3]
    assert found[1].tolist() == [0, 2, 3]
    assert found[99].tolist() == [0, 1, 2]


def test_the_search_deepens_until_rounding_can_hide_no_row():
    """All distances round to the same float32; the nearest rows are the last."""
    gallery = np.stack([np.ones(200), np.linspace(1e-4, 0, 200)], axis=1)
    found = nearest_neighbours(np.zeros((1, 2)), 4, gallery=gallery)
    assert found.tolist() == [[199, 198, 197, 196]]


def test_rows_do_not_depend_on_the_batch():
    embeddings = unit(np.random.default_rng(1).normal(size=(300, 32)))
    together = nearest_neighbours(embeddings, 299)
    ids = np.arange(300)
    for some in (slice(0, 1), slice(40, 53), slice(100, 300)):
        alone = nearest_neighbours(embeddings[some], 299, gallery=embeddings, gallery_ids=ids, ids=ids[some])
        np.testing.assert_array_equal(alone, together[some])


def test_ids_may_be_strings_and_name_several_rows():
    gallery = np.array([[0.0], [1.0], [2.0], [3.0]])
    found = nearest_neighbours(
        [[0.0], [3.0]], 4, gallery=gallery, gallery_ids=["a", "b", "a", "c"], ids=["a", "z"]
    )
    assert found.tolist() == [[1, 3, -1, -1], [3, 2, 1, 0]]


def test_ids_without_a_gallery_tie_rows_to_one_image():
    found = nearest_neighbours([[0.0], [1.0], [3.0]], 2, ids=[7, 7, 8])
    assert found.tolist() == [[2, -1], [2, -1], [1, 0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_takes_tensors(dtype):
    embeddings = torch.tensor([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]], dtype=dtype, requires_grad=True)
    assert nearest_neighbours(embeddings, 1).tolist() == [[1], [0], [1]]


def test_takes_read_only_arrays_and_leaves_them_alone():
    embeddings = np.asfortranarray(np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32))
    before = embeddings.copy()
    embeddings.setflags(write=False)
    np.testing.assert_array_equal(nearest_neighbours(embeddings, 3), brute_force(before, 3))
    np.testing.assert_array_equal(embeddings, before)


@pytest.mark.parametrize("dimension", [1, 16, 128, 1024])
def test_rounding_covers_faiss(dimension):
    rng = np.random.default_rng(dimension)
    for offset in (0.0, 1.0):
        x = unit(offset + rng.normal(size=(100, dimension)))
        index = faiss.IndexFlatL2(dimension)
        index.add(x)
        found, rows = index.search(x, 100)
        exact = np.square(x[rows].astype(np.float64) - x[:, None]).sum(2)
        assert (abs(found - exact) <= rounding(np.full(100, 2.0, np.float32), dimension)[:, None]).all()


def test_memory_stays_below_a_matrix_of_all_pairs():
    embeddings = unit(np.random.default_rng(0).normal(size=(6000, 8)))
    tracemalloc.start()
    nearest_neighbours(embeddings, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6000 * 6000  # a byte for each pair


@settings(max_examples=20)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 40))
def test_short_rows_are_padded(queries, gallery, depth):
    rng = np.random.default_rng(0)
    found = nearest_neighbours(rng.normal(size=(queries, 2)), depth, gallery=rng.normal(size=(gallery, 2)))
    assert found.shape == (queries, depth)
    assert ((found >= 0).sum(1) == min(gallery, depth)).all()
    assert (found[:, gallery:] == -1).all()


A = np.ones((3, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries": np.empty((0, 2))}, r"queries must be \[N, D\] with at least one row, not \[0, 2\]"),
        ({"queries": np.ones(3)}, r"queries must be \[N, D\].*not \[3\]"),
        ({"queries": A * np.nan}, "queries hold NaN or infinite values"),
        ({"depth": 0}, "depth must be 1 or more, not 0"),
        ({"gallery": np.empty((0, 2))}, r"gallery must be \[N, D\] with at least one row"),
        ({"gallery": np.ones((4, 5))}, "queries have 2 dimensions and the gallery 5"),
        ({"ids": [1, 2]}, "ids has 2 entries for 3 rows"),
        ({"gallery": A, "ids": [1, 2, 3]}, "ids and gallery_ids go together"),
        ({"gallery": A, "gallery_ids": [1, 2, 3]}, "ids and gallery_ids go together"),
        ({"gallery": A, "ids": [1, 2, 3], "gallery_ids": [1]}, "gallery_ids has 1 entries for 3 rows"),
        ({"gallery_ids": [1, 2, 3]}, "gallery_ids needs a gallery"),
        ({"ids": [[1], [2], [3]]}, r"ids must be \[N\] with at least one entry, not \[3, 1\]"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        nearest_neighbours(**{"queries": A, "depth": 1, **arguments})
