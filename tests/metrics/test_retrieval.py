from __future__ import annotations

import warnings
from operator import eq

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from mdprop.metrics import mean_average_precision, recall_at_k
from tests.metrics.loops import labelled, naive_map, naive_recall, ranked

KS = [1, 2, 4, 8]


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
    given = {"gallery": gallery, "gallery_labels": gallery_labels, "disjoint": True}
    assert recall_at_k(queries, labels, [1], **given)[1] == pytest.approx(theirs["precision_at_1"])
    for depth, name in (("R", "mean_average_precision_at_r"), (200, "mean_average_precision")):
        ours = mean_average_precision(queries, labels, depth=depth, **given)
        assert ours == pytest.approx(theirs[name], rel=1e-6)


def test_identical_images_of_other_classes():
    """The authors drop the first neighbour, which here may be the other image."""
    embeddings = [[1.0, 0.0], [1.0, 0.0], [0.8, 0.6], [0.8, 0.6]]
    assert recall_at_k(embeddings, [0, 1, 0, 1], [1, 2]) == {1: 0.0, 2: 0.5}
    assert recall_at_k(embeddings, [0, 0, 1, 1], [1]) == {1: 1.0}


def test_perfect_retrieval_counts_the_query_among_its_class():
    embeddings, labels = np.eye(3).repeat(4, axis=0), np.arange(3).repeat(4)
    for depth in ("R", 1000):
        assert mean_average_precision(embeddings, labels, depth=depth) == pytest.approx(3 / 4)
        given = {"gallery": embeddings, "gallery_labels": labels, "disjoint": True}
        assert mean_average_precision(np.eye(3), [0, 1, 2], depth=depth, **given) == pytest.approx(1)


def test_a_class_of_one_image_is_a_miss():
    embeddings, labels = [[0.0], [0.1], [5.0]], [0, 0, 1]
    assert recall_at_k(embeddings, labels, [1, 99]) == {1: 2 / 3, 99: 2 / 3}
    assert mean_average_precision(embeddings, labels) == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert mean_average_precision(embeddings[:1], labels[:1]) == 0


def test_a_class_that_the_gallery_lacks_is_a_miss():
    given = {"gallery": [[0.0], [1.0]], "gallery_labels": [3, 4], "disjoint": True}
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


GALLERY = {"gallery": A, "gallery_labels": L}


@pytest.mark.parametrize("measure", [lambda *a, **k: recall_at_k(*a, [1], **k)[1], mean_average_precision])
def test_a_gallery_without_ids_is_not_searched_in_silence(measure):
    """Attacked images find their own originals there, and seem to be right."""
    clean, labels = np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([0, 1, 0, 1])
    attacked, own = clean + 0.1, np.arange(4)
    gallery = {"gallery": clean, "gallery_labels": labels}
    with pytest.warns(
        UserWarning, match="gallery without ids.* give ids and gallery_ids .* disjoint=True"
    ) as said:
        flattered = measure(attacked, labels, **gallery)
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        honest = measure(attacked, labels, **gallery, ids=own, gallery_ids=own)
        assert measure(attacked, labels, **gallery, disjoint=True) == flattered
        measure(attacked, labels)
    assert honest < flattered


@pytest.mark.parametrize("given", [{}, GALLERY | {"ids": L, "gallery_ids": L}, GALLERY | {"ids": L}])
def test_disjoint_is_about_a_gallery_without_ids(given):
    for measure in (lambda *a, **k: recall_at_k(*a, [1], **k), mean_average_precision):
        with pytest.raises(ValueError, match="disjoint is about a gallery without ids"):
            measure(A, L, **given, disjoint=True)


@pytest.mark.parametrize("ks", [[], [0, 1], [-1]])
def test_refuses_ks(ks):
    with pytest.raises(ValueError, match="ks must be one or more numbers from 1"):
        recall_at_k(A, L, ks)


@pytest.mark.parametrize("depth", [0, -3, "r", 1.5])
def test_refuses_depths(depth):
    with pytest.raises(ValueError, match="depth must be 'R' or a number from 1"):
        mean_average_precision(A, L, depth=depth)
