from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from mdprop.metrics import recall_at_k, retrieval
from mdprop.metrics.index import Index
from tests.metrics.loops import clustered, scores


@pytest.fixture
def control():
    """A control of 300 queries and half of the cells, so that small data can be searched approximately."""
    with mock.patch.multiple(retrieval, SAMPLE=300, MOST_CELLS=2):
        yield 300


def test_an_approximate_search_reports_what_it_misses(control):
    embeddings, labels = clustered(400, 10, 0.7)
    exact = scores(embeddings, labels, [1, 10], ["R", 100])
    with mock.patch.object(retrieval, "GAP", 0.02):
        found = scores(embeddings, labels, [1, 10], ["R", 100], exact_limit=3999, seed=3)
        again = scores(embeddings, labels, [1, 10], ["R", 100], exact_limit=3999, seed=3)
    assert found == again
    assert set(found) == {*exact, *(f"{name}_gap" for name in exact)}
    assert 0.5 < exact["recall_at_1"] < 0.95
    assert abs(found["recall_at_1_gap"]) <= 0.02
    assert found["map_at_100_gap"] > 0  # it is no exact search
    for name, value in exact.items():
        assert value - found[name] == pytest.approx(found[f"{name}_gap"], abs=0.03)


def test_the_gap_is_that_of_the_control(control):
    embeddings, labels = clustered(400, 10, 0.7)
    rows = np.sort(np.random.default_rng(5).choice(4000, control, replace=False))
    given = {"gallery": embeddings, "gallery_labels": labels, "gallery_ids": np.arange(4000), "ids": rows}
    exact = recall_at_k(embeddings[rows], labels[rows], [1, 10], **given)
    with mock.patch.object(retrieval, "GAP", 0.02):
        found = scores(embeddings, labels, [1, 10], ["R"], exact_limit=10, seed=5)
    task = retrieval._task(embeddings, labels, None, None, None, None).only(rows)
    index = Index(embeddings, cells=retrieval._cells(4000), seed=5)
    efforts = [2**i for i in range(8)]
    for effort in efforts:
        index.set_effort(effort)
        near = task.search(10, {}, index)
        differ = np.mean((near.rank == 1) != (task.search(10, {}).rank == 1))
        if differ <= 0.02:
            break
    assert effort > 1  # the first effort does not do
    for k in (1, 10):
        assert found[f"recall_at_{k}_gap"] == pytest.approx(exact[k] - near.recall(k), abs=1e-12)


def test_what_cells_can_not_find_is_searched_exactly(control):
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(2000, 64))
    labels = rng.integers(0, 2, 2000)
    exact = scores(embeddings, labels, [1], ["R"])
    assert scores(embeddings, labels, [1], ["R"], exact_limit=1000) == {
        **exact, "recall_at_1_gap": 0.0, "map_at_r_gap": 0.0,
    }  # fmt: skip


def test_what_would_take_as_long_as_an_exact_search_is_searched_exactly(control):
    embeddings, labels = clustered(400, 10, 0.7)
    exact = recall_at_k(embeddings, labels, [100])[100]
    with mock.patch.object(retrieval, "GAP", 0.02):
        few = scores(embeddings, labels, [100], [], exact_limit=10)
        with mock.patch.object(retrieval, "MOST_CELLS", 64):
            all_rows = scores(embeddings, labels, [100], [], exact_limit=10)
    assert few["recall_at_100"] != exact
    assert all_rows == {"recall_at_100": exact, "recall_at_100_gap": 0.0}


def test_few_queries_are_searched_exactly(control):
    embeddings, labels = clustered(100, 10, 0.5)
    given = {"gallery": embeddings, "gallery_labels": labels, "disjoint": True}
    found = scores(embeddings[:control], labels[:control], [2], [], exact_limit=1, **given)
    assert found == {
        "recall_at_2": recall_at_k(embeddings[:control], labels[:control], [2], **given)[2],
        "recall_at_2_gap": 0.0,
    }


def test_at_the_limit_the_search_is_exact():
    embeddings, labels = clustered(10, 5, 0.5)
    assert set(scores(embeddings, labels, [1], exact_limit=50)) == {"recall_at_1", "map_at_r"}


def test_rows_that_were_not_found_are_no_hits():
    embeddings, _ = clustered(100, 10, 0.5)
    task = retrieval._task(embeddings, np.zeros(1000, dtype=int), None, None, None, None)
    index = Index(embeddings, cells=32)
    index.set_effort(1)
    found = task.search(999, {999: np.full(1000, 999)}, index)
    held = (index.search(embeddings, 1000)[1] >= 0).sum(axis=1) - 1
    assert held.max() < 500
    np.testing.assert_allclose(found.precision[999], held / 1000)
