from __future__ import annotations

import tracemalloc
from operator import eq
from unittest import mock

import faiss
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from mdprop.metrics import mean_average_precision, neighbours, recall_at_k, retrieval, retrieval_scores
from mdprop.metrics.index import Index

KS = [1, 2, 4, 8]


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


@st.composite
def labelled(draw, most=25):
    """Embeddings full of identical images, with labels that hold classes of one image."""
    count = draw(st.integers(1, most))
    embeddings = draw(arrays(np.float32, (count, 2), elements=st.integers(-2, 2).map(float)))
    return embeddings, draw(arrays(np.int64, count, elements=st.integers(0, 4)))


@pytest.mark.parametrize("k", KS)
def test_recall_is_the_authors(golden, k):
    assert recall_at_k(golden["features"], golden["labels"], [k]) == {k: golden[f"recall_at_{k}"]}


@pytest.mark.parametrize(("depth", "name"), [("R", "mAP_c"), (1000, "mAP_1000"), (1023, "mAP_lim")])
def test_map_is_the_authors(golden, depth, name):
    value = mean_average_precision(golden["features"], golden["labels"], depth=depth)
    assert value == pytest.approx(float(golden[name]), rel=2e-6)


@given(labelled(), st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_recall_equals_a_loop(data, ks):
    embeddings, labels = data
    ranking = [ranked(embeddings, q, embeddings, eq) for q in range(len(labels))]
    assert recall_at_k(embeddings, labels, ks) == {
        k: pytest.approx(naive_recall(ranking, labels, labels, k)) for k in ks
    }


@given(labelled(), st.just("R") | st.integers(1, 30))
def test_map_equals_a_loop(data, depth):
    embeddings, labels = data
    ranking = [ranked(embeddings, q, embeddings, eq) for q in range(len(labels))]
    expected = naive_map(ranking, labels, labels, depth)
    assert mean_average_precision(embeddings, labels, depth=depth) == pytest.approx(expected)


@given(labelled(10), labelled(), st.just("R") | st.integers(1, 30), st.data())
def test_a_gallery_equals_a_loop(queries, gallery, depth, data):
    (queries, labels), (gallery, gallery_labels) = queries, gallery
    ids = data.draw(arrays(np.int64, len(labels), elements=st.integers(0, 9)))
    gallery_ids = data.draw(arrays(np.int64, len(gallery_labels), elements=st.integers(0, 9)))
    ranking = [ranked(queries, q, gallery, lambda q, g: ids[q] == gallery_ids[g]) for q in range(len(labels))]
    given = {
        "gallery": gallery, "gallery_labels": gallery_labels, "gallery_ids": gallery_ids, "ids": ids,
    }  # fmt: skip
    expected = naive_map(ranking, labels, gallery_labels, depth)
    assert mean_average_precision(queries, labels, depth=depth, **given) == pytest.approx(expected)
    expected = {k: pytest.approx(naive_recall(ranking, labels, gallery_labels, k)) for k in (1, 5)}
    assert recall_at_k(queries, labels, (1, 5), **given) == expected


@given(labelled(), st.just("R") | st.integers(1, 30))
def test_a_set_as_its_own_gallery_changes_nothing(data, depth):
    embeddings, labels = data
    ids = np.arange(len(labels))
    itself = {"gallery": embeddings, "gallery_labels": labels, "gallery_ids": ids, "ids": ids}
    assert recall_at_k(embeddings, labels, KS, **itself) == recall_at_k(embeddings, labels, KS)
    assert mean_average_precision(embeddings, labels, depth=depth, **itself) == mean_average_precision(
        embeddings, labels, depth=depth
    )


@settings(max_examples=20)
@given(labelled(), st.permutations(range(5)))
def test_names_of_classes_do_not_matter(data, names):
    embeddings, labels = data
    renamed = 100 - np.array(names)[labels]
    assert recall_at_k(embeddings, renamed, KS) == recall_at_k(embeddings, labels, KS)
    assert mean_average_precision(embeddings, renamed) == mean_average_precision(embeddings, labels)


def test_agrees_with_pytorch_metric_learning():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, 16))
    labels, gallery_labels = rng.integers(0, 12, 90), np.r_[np.arange(12), rng.integers(0, 12, 188)]
    queries = torch.tensor(centres[labels] + 2 * rng.normal(size=(90, 16)), dtype=torch.float32)
    gallery = torch.tensor(centres[gallery_labels] + 2 * rng.normal(size=(200, 16)), dtype=torch.float32)
    theirs = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r", "mean_average_precision"), k=200
    ).get_accuracy(
        queries, torch.tensor(labels), gallery, torch.tensor(gallery_labels), ref_includes_query=False
    )
    given = {"gallery": gallery, "gallery_labels": gallery_labels}
    assert recall_at_k(queries, labels, [1], **given)[1] == pytest.approx(theirs["precision_at_1"])
    for depth, name in (("R", "mean_average_precision_at_r"), (200, "mean_average_precision")):
        ours = mean_average_precision(queries, labels, depth=depth, **given)
        assert ours == pytest.approx(theirs[name], rel=1e-6)


def test_one_search_serves_all_measures(golden):
    x, y = golden["features"], golden["labels"]
    depths = ["R", 1, 50, 200]
    expected = {f"recall_at_{k}": value for k, value in recall_at_k(x, y, KS).items()}
    expected |= {f"map_at_{str(d).lower()}": mean_average_precision(x, y, depth=d) for d in depths}
    assert retrieval_scores(x, y, KS, depths) == expected


def test_identical_images_of_other_classes():
    """The authors drop the first neighbour, which here may be the other image."""
    embeddings = [[1.0, 0.0], [1.0, 0.0], [0.8, 0.6], [0.8, 0.6]]
    assert recall_at_k(embeddings, [0, 1, 0, 1], [1, 2]) == {1: 0.0, 2: 0.5}
    assert recall_at_k(embeddings, [0, 0, 1, 1], [1]) == {1: 1.0}


def test_perfect_retrieval_counts_the_query_among_its_class():
    embeddings, labels = np.eye(3).repeat(4, axis=0), np.arange(3).repeat(4)
    for depth in ("R", 1000):
        assert mean_average_precision(embeddings, labels, depth=depth) == pytest.approx(3 / 4)
        given = {"gallery": embeddings, "gallery_labels": labels}
        assert mean_average_precision(np.eye(3), [0, 1, 2], depth=depth, **given) == pytest.approx(1)


def test_a_class_of_one_image_is_a_miss():
    embeddings, labels = [[0.0], [0.1], [5.0]], [0, 0, 1]
    assert recall_at_k(embeddings, labels, [1, 99]) == {1: 2 / 3, 99: 2 / 3}
    assert mean_average_precision(embeddings, labels) == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert mean_average_precision(embeddings[:1], labels[:1]) == 0


def test_a_class_that_the_gallery_lacks_is_a_miss():
    given = {"gallery": [[0.0], [1.0]], "gallery_labels": [3, 4]}
    assert recall_at_k([[0.0], [1.0]], [9, 4], [2], **given) == {2: 0.5}
    assert mean_average_precision([[0.0], [1.0]], [9, 4], **given) == 0.5
    assert mean_average_precision([[0.0]], [9], **given) == 0


def test_takes_tensors():
    embeddings, labels = torch.eye(3).repeat(2, 1), torch.tensor([0, 1, 2, 0, 1, 2])
    assert recall_at_k(embeddings, labels, (1,)) == {1: 1.0}
    assert mean_average_precision(embeddings, labels.int()) == 0.5


A, L = np.eye(3), [0, 1, 1]


@pytest.mark.parametrize("measure", [lambda *a, **k: recall_at_k(*a, [1], **k), mean_average_precision])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.empty((0, 3)), []), "embeddings must be .* at least one row"),
        ((A, [0, 1]), "labels has 2 entries for 3 rows"),
        ((A, []), "labels must be .* at least one entry"),
        ((A, [0.0, 1.0, 1.0]), "labels must be integers, not float64"),
        ((A, L, A), "gallery and gallery_labels go together"),
        ((A, L, None, L), "gallery and gallery_labels go together"),
        ((A, L, A, [0]), "gallery_labels has 1 entries for 3 rows"),
    ],
)
def test_refuses(measure, arguments, message):
    names = ("gallery", "gallery_labels")
    with pytest.raises(ValueError, match=message):
        measure(*arguments[:2], **dict(zip(names, arguments[2:], strict=False)))


@pytest.mark.parametrize("ks", [[], [0, 1], [-1]])
def test_refuses_ks(ks):
    with pytest.raises(ValueError, match="ks must be one or more numbers from 1"):
        recall_at_k(A, L, ks)


@pytest.mark.parametrize("depth", [0, -3, "r", 1.5])
def test_refuses_depths(depth):
    with pytest.raises(ValueError, match="depth must be 'R' or a number from 1"):
        mean_average_precision(A, L, depth=depth)


def clustered(classes, images, noise, dimension=16, seed=0):
    """Unit vectors around random centres, with their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(classes).repeat(images))
    x = rng.normal(size=(classes, dimension))[labels] + noise * rng.normal(size=(len(labels), dimension))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


@given(labelled(40), st.integers(1, 60))
def test_scores_equal_loops_whatever_the_block(data, block):
    embeddings, labels = data
    ranking = [ranked(embeddings, q, embeddings, eq) for q in range(len(labels))]
    with mock.patch.object(neighbours, "_BLOCK", block):
        scores = retrieval_scores(embeddings, labels, [1, 5], ["R", 7])
    assert scores == {
        "recall_at_1": pytest.approx(naive_recall(ranking, labels, labels, 1)),
        "recall_at_5": pytest.approx(naive_recall(ranking, labels, labels, 5)),
        "map_at_r": pytest.approx(naive_map(ranking, labels, labels, "R")),
        "map_at_7": pytest.approx(naive_map(ranking, labels, labels, 7)),
    }


@pytest.mark.parametrize("spread", [1.0, 1e-3, 1e-6, 1e-7])  # the last two are all within float32's rounding
@pytest.mark.parametrize("classes", [3, 40])
def test_scores_are_exact_where_float32_is_not(spread, classes):
    rng = np.random.default_rng(classes)
    embeddings = (np.ones(16) / 4 + spread * rng.normal(size=(300, 16))).astype(np.float32)
    embeddings[200:260] = embeddings[:60]
    labels = rng.integers(0, classes, 300)
    ranking = [ranked(embeddings, q, embeddings, eq) for q in range(300)]
    scores = retrieval_scores(embeddings, labels, [1, 4], ["R", 70])
    assert scores["recall_at_1"] == pytest.approx(naive_recall(ranking, labels, labels, 1), abs=1e-12)
    assert scores["recall_at_4"] == pytest.approx(naive_recall(ranking, labels, labels, 4), abs=1e-12)
    assert scores["map_at_r"] == pytest.approx(naive_map(ranking, labels, labels, "R"), abs=1e-12)
    assert scores["map_at_70"] == pytest.approx(naive_map(ranking, labels, labels, 70), abs=1e-12)


def test_a_dead_network_is_measured():
    labels = np.arange(3000) % 3
    scores = retrieval_scores(np.full((3000, 4), 0.5), labels, [1], ["R"])
    assert scores["recall_at_1"] == pytest.approx(np.mean(labels == 0) - 1 / 3000)  # 0 finds 1, others find 0


def test_no_neighbours_of_all_queries_are_held():
    embeddings, labels = clustered(2000, 4, 0.3)
    with mock.patch.object(neighbours, "_BLOCK", 2**16):
        tracemalloc.start()
        retrieval_scores(embeddings, labels, [1], [1000])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8000 * 1000  # a byte for each neighbour


@pytest.fixture
def control():
    """A control of 300 queries and half of the cells, so that small data can be searched approximately."""
    with mock.patch.multiple(retrieval, SAMPLE=300, MOST_CELLS=2):
        yield 300


def test_an_approximate_search_reports_what_it_misses(control):
    embeddings, labels = clustered(400, 10, 0.7)
    exact = retrieval_scores(embeddings, labels, [1, 10], ["R", 100])
    with mock.patch.object(retrieval, "GAP", 0.02):
        scores = retrieval_scores(embeddings, labels, [1, 10], ["R", 100], exact_limit=3999, seed=3)
        again = retrieval_scores(embeddings, labels, [1, 10], ["R", 100], exact_limit=3999, seed=3)
    assert scores == again
    assert set(scores) == {*exact, *(f"{name}_gap" for name in exact)}
    assert 0.5 < exact["recall_at_1"] < 0.95
    assert abs(scores["recall_at_1_gap"]) <= 0.02
    assert scores["map_at_100_gap"] > 0  # it is no exact search
    for name, value in exact.items():
        assert value - scores[name] == pytest.approx(scores[f"{name}_gap"], abs=0.03)


def test_the_gap_is_that_of_the_control(control):
    embeddings, labels = clustered(400, 10, 0.7)
    rows = np.sort(np.random.default_rng(5).choice(4000, control, replace=False))
    given = {"gallery": embeddings, "gallery_labels": labels, "gallery_ids": np.arange(4000), "ids": rows}
    exact = recall_at_k(embeddings[rows], labels[rows], [1, 10], **given)
    with mock.patch.object(retrieval, "GAP", 0.02):
        scores = retrieval_scores(embeddings, labels, [1, 10], ["R"], exact_limit=10, seed=5)
    task = retrieval._task(embeddings, labels, None, None, None, None).only(rows)
    index = Index(embeddings, cells=retrieval._cells(4000), seed=5)
    efforts = [2**i for i in range(8)]
    for effort in efforts:
        index.set_effort(effort)
        ranks = task.search(index, 10)
        differ = np.mean(ranks.found(1) != task.search(Index(embeddings), 10).found(1))
        if differ <= 0.02:
            break
    assert effort > 1  # the first effort does not do
    for k in (1, 10):
        assert scores[f"recall_at_{k}_gap"] == pytest.approx(exact[k] - ranks.found(k).mean(), abs=1e-12)


def test_what_cells_can_not_find_is_searched_exactly(control):
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(2000, 64))
    labels = rng.integers(0, 2, 2000)
    exact = retrieval_scores(embeddings, labels, [1], ["R"])
    assert retrieval_scores(embeddings, labels, [1], ["R"], exact_limit=1000) == {
        **exact, "recall_at_1_gap": 0.0, "map_at_r_gap": 0.0,
    }  # fmt: skip


def test_what_would_take_as_long_as_an_exact_search_is_searched_exactly(control):
    embeddings, labels = clustered(400, 10, 0.7)
    exact = recall_at_k(embeddings, labels, [100])[100]
    with mock.patch.object(retrieval, "GAP", 0.02):
        few = retrieval_scores(embeddings, labels, [100], [], exact_limit=10)
        with mock.patch.object(retrieval, "MOST_CELLS", 64):
            all_rows = retrieval_scores(embeddings, labels, [100], [], exact_limit=10)
    assert few["recall_at_100"] != exact
    assert all_rows == {"recall_at_100": exact, "recall_at_100_gap": 0.0}


def test_few_queries_are_searched_exactly(control):
    embeddings, labels = clustered(100, 10, 0.5)
    given = {"gallery": embeddings, "gallery_labels": labels}
    scores = retrieval_scores(embeddings[:control], labels[:control], [2], [], exact_limit=1, **given)
    assert scores == {
        "recall_at_2": recall_at_k(embeddings[:control], labels[:control], [2], **given)[2],
        "recall_at_2_gap": 0.0,
    }


def test_at_the_limit_the_search_is_exact():
    embeddings, labels = clustered(10, 5, 0.5)
    assert set(retrieval_scores(embeddings, labels, [1], exact_limit=50)) == {"recall_at_1", "map_at_r"}


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
    found = retrieval_scores(embeddings, labels, [1], [100, 3000])
    assert widths == []  # a GPU finds at most 2048
    scores = retrieval_scores(embeddings, labels, [1], [100])
    assert widths and max(widths) <= 2048
    assert scores == {name: found[name] for name in scores}


def naive_recall_at_1(points: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Each row against all others in float64; of equal distances the lower row."""
    exact = points.astype(np.float64)
    hits = 0
    for row, point in enumerate(exact):
        distances = np.square(exact - point).sum(1)
        distances[row] = np.inf
        hits += labels[int(np.argmin(distances))] == labels[row]
    return hits / len(points)


def test_many_identical_images_need_a_wider_search_of_some_queries() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(600, 128)).astype(np.float32)
    points[:17] = points[0]
    labels = rng.integers(0, 60, 600)
    assert recall_at_k(points, labels, [1])[1] == pytest.approx(naive_recall_at_1(points, labels))
    line = np.arange(60, dtype=np.float32)
    points = np.stack([line, line**2], 1)
    points[[3, 20, 50, *range(30, 48)]] = points[3]
    labels = np.arange(60) % 7
    assert recall_at_k(points, labels, [1])[1] == pytest.approx(naive_recall_at_1(points, labels))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(20, 90), st.integers(1, 4))
def test_rounded_vectors_with_many_copies_equal_a_loop(seed: int, count: int, dimension: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.integers(-2, 3, (count, dimension)).astype(np.float32)
    points[rng.integers(0, count, count // 3)] = points[0]
    labels = rng.integers(0, 5, count)
    assert recall_at_k(points, labels, [1])[1] == pytest.approx(naive_recall_at_1(points, labels))
