from __future__ import annotations

import subprocess
import sys
import tracemalloc
from operator import eq
from unittest import mock

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdprop.metrics import mean_average_precision, neighbours, recall_at_k, retrieve
from mdprop.metrics.index import Index
from tests.metrics.loops import clustered, labelled, naive_map, naive_recall, ranked, scores

KS = [1, 2, 4, 8]


def assert_equals_loops(embeddings, labels, depth=7):
    """Rank, precision and nearest neighbour of each query, and their means."""
    found = retrieve(embeddings, labels, [1, 5], ["R", depth])
    ranking = [ranked(embeddings, q, embeddings, eq) for q in range(len(labels))]
    reach = max(depth, 5, np.bincount(labels).max())
    for q, row in enumerate(ranking):
        ranks = [i for i, g in enumerate(row[:reach], start=1) if labels[g] == labels[q]]
        assert found.rank[q] == (ranks[0] if ranks else 0)
        assert found.nearest[q] == (row[0] if row else -1)
        for at in ("R", depth):
            assert found.precision[at][q] == pytest.approx(naive_map([row], labels[[q]], labels, at))
    for k in (1, 5):
        assert found.recall(k) == pytest.approx(naive_recall(ranking, labels, labels, k))
    for at in ("R", depth):
        assert found.mean_precision(at) == pytest.approx(naive_map(ranking, labels, labels, at))


def test_one_search_serves_all_measures(golden):
    x, y = golden["features"], golden["labels"]
    depths = ["R", 1, 50, 200]
    expected = {f"recall_at_{k}": value for k, value in recall_at_k(x, y, KS).items()}
    expected |= {f"map_at_{str(d).lower()}": mean_average_precision(x, y, depth=d) for d in depths}
    assert scores(x, y, KS, depths) == expected


@settings(deadline=None)
@given(labelled(40), st.integers(1, 50), st.integers(1, 60))
def test_each_query_equals_a_loop_whatever_the_block(data, depth, block):
    with mock.patch.object(neighbours, "_BLOCK", block):
        assert_equals_loops(*data, depth)


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6, 1e-7])  # the last two are all within float32's rounding
@pytest.mark.parametrize("classes", [3, 40])
def test_each_query_is_exact_where_float32_is_not(spread, classes):
    rng = np.random.default_rng(classes)
    embeddings = (np.ones(16) / 4 + spread * rng.normal(size=(300, 16))).astype(np.float32)
    embeddings[200:260] = embeddings[:60]
    assert_equals_loops(embeddings, rng.integers(0, classes, 300), 70)


def test_a_dead_network_is_measured():
    labels = np.arange(3000) % 3
    found = scores(np.full((3000, 4), 0.5), labels, [1], ["R"])
    assert found["recall_at_1"] == pytest.approx(np.mean(labels == 0) - 1 / 3000)  # 0 finds 1, others find 0


def test_many_identical_images_need_a_wider_search_of_some_queries():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(600, 128)).astype(np.float32)
    points[:17] = points[0]
    labels = rng.integers(0, 60, 600)
    assert_equals_loops(points, labels)
    line = np.arange(60, dtype=np.float32)
    points = np.stack([line, line**2], 1)
    points[[3, 20, 50, *range(30, 48)]] = points[3]
    labels = np.arange(60) % 7
    assert_equals_loops(points, labels)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(20, 90), st.integers(1, 4))
def test_rounded_vectors_with_many_copies_equal_a_loop(seed, count, dimension):
    rng = np.random.default_rng(seed)
    points = rng.integers(-2, 3, (count, dimension)).astype(np.float32)
    points[rng.integers(0, count, count // 3)] = points[0]
    labels = rng.integers(0, 5, count)
    assert_equals_loops(points, labels)


@pytest.mark.parametrize("size", [1e-18, 1e-21, 1e-22])
def test_vectors_whose_squares_float32_barely_holds(size):
    rng = np.random.default_rng(0)
    embeddings = (size * rng.normal(size=(80, 3))).astype(np.float32)
    assert_equals_loops(embeddings, rng.integers(0, 9, 80))


def test_a_gallery_with_ids_and_no_image_to_find():
    given = {"gallery": [[0.0], [2.0], [3.0]], "gallery_labels": [1, 2, 1], "gallery_ids": [7, 8, 7]}
    found = retrieve([[0.1], [2.9]], [1, 1], [1, 2], ["R"], **given, ids=[7, 9])
    assert found.nearest.tolist() == [1, 2]
    assert found.rank.tolist() == [0, 1]
    assert found.precision["R"].tolist() == [0, 1 / 2]
    alone = retrieve([[1.0], [1.0]], [0, 0], [1], ids=[3, 3])
    assert alone.nearest.tolist() == [-1, -1]
    assert alone.rank.tolist() == [0, 0]


def test_recall_beyond_what_was_searched_is_refused():
    found = retrieve(np.eye(3), [0, 1, 1], [2], [1])
    with pytest.raises(ValueError, match="k must be from 1 to the depth searched, 2, not 3"):
        found.recall(3)


@pytest.fixture
def widths(monkeypatch):
    """How many neighbours FAISS was asked for, and of how many rows, for each query of each search."""
    asked = []
    search = Index.search

    def counting(index, queries, width):
        asked.extend([(width, index.size)] * len(queries))
        return search(index, queries, width)

    monkeypatch.setattr(Index, "search", counting)
    return asked


def test_more_copies_than_can_be_found_are_not_searched(widths):
    embeddings, labels = clustered(100, 10, 0.5)
    embeddings[::2] = embeddings[0]
    assert_equals_loops(embeddings, labels, 20)
    assert {size for _, size in widths} == {500 + 21}  # of the 500 copies: the depth and the query itself


def test_a_far_image_asks_for_no_wider_search_of_others(widths):
    embeddings, labels = clustered(300, 3, 0.5)
    embeddings[5] *= 1e4
    assert_equals_loops(embeddings, labels)
    assert sum(width > 7 + 1 + 16 for width, _ in widths) <= 4  # of that image's own, ever wider


def test_faiss_keeps_its_own_setting():
    code = (
        "import faiss; before = faiss.cvar.distance_compute_blas_threshold\n"
        "import mdprop.metrics as metrics; metrics.recall_at_k([[0.0], [1.0], [2.0]], [0, 0, 1], [1])\n"
        "metrics.clustering_scores([[0.0], [1.0], [2.0]], [0, 0, 1], seed=0)\n"
        "assert faiss.cvar.distance_compute_blas_threshold == before"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_neighbours_of_all_queries_are_held():
    embeddings, labels = clustered(2000, 4, 0.3)
    with mock.patch.object(neighbours, "_BLOCK", 2**16):
        tracemalloc.start()
        scores(embeddings, labels, [1], [1000])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8000 * 1000  # a byte for each neighbour


def test_gpus_are_used_where_faiss_has_them(monkeypatch):
    """A stand-in: the copies on the GPUs are a CPU index that counts its searches."""
    widths = []

    class OnGpu:
        def __init__(self, index):
            self.index = index

        def search(self, queries, width):
            widths.append(width)
            return self.index.search(queries, width)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", OnGpu)
    embeddings, labels = clustered(900, 4, 0.5)
    expected = scores(embeddings, labels, [1], [100, 3000])
    assert widths == []  # a GPU finds at most 2048
    found = scores(embeddings, labels, [1], [100])
    assert widths and max(widths) <= 2048
    assert found == {name: expected[name] for name in found}
