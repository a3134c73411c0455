from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mdprop.data.stores.embeddings import write_embeddings
from mdprop.errors import DataError, ResultError
from mdprop.metrics import clustering_scores, embedding_density, mean_average_precision, spectral_decay
from mdprop.robustness.evaluation import evaluate_sets

IDS = np.array([10, 11, 12, 13, 14, 15])
LABELS = np.array([0, 0, 1, 1, 2, 2])
CLEAN = [0, 5, 40, 76, 81, 130]  # degrees


def at_angles(degrees: list[float]) -> NDArray[np.float32]:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians), 0 * radians], axis=1).astype(np.float32)


def write(folder: Path, name: str, degrees: list[float], rows: list[int]) -> None:
    write_embeddings(folder / f"{name}.parquet", [(IDS[rows], LABELS[rows], at_angles(degrees))])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "clean", CLEAN, [0, 1, 2, 3, 4, 5])
    return tmp_path


def test_clean_images_search_all_others(folder: Path) -> None:
    results = evaluate_sets(folder, [], [1, 2, 4], seed=0)
    assert list(results) == ["clean"]
    clean = results["clean"]
    # The nearest is right for 10, 11 and 15; the second for 12 and 13; the third for 14.
    assert clean["recall_at_1"] == pytest.approx(3 / 6)
    assert clean["recall_at_2"] == pytest.approx(5 / 6)
    assert clean["recall_at_4"] == pytest.approx(1)
    assert clean["queries"] == 6


def test_the_other_measures_are_those_of_the_embeddings(folder: Path) -> None:
    clean = evaluate_sets(folder, [], [1], seed=3)["clean"]
    embeddings = at_angles(CLEAN)
    expected = {
        "map_at_r": mean_average_precision(embeddings, LABELS, depth="R"),
        "map_at_1000": mean_average_precision(embeddings, LABELS, depth=1000),
        **clustering_scores(embeddings, LABELS, seed=3),
        **{f"density_{key}": value for key, value in embedding_density(embeddings, LABELS).items()},
        "spectral_decay": spectral_decay(embeddings),
    }
    assert {key: clean[key] for key in expected} == pytest.approx(expected)
    assert set(clean) == {*expected, "recall_at_1", "queries"}


def test_adversarial_queries_search_the_clean_gallery_without_their_own_image(folder: Path) -> None:
    # Image 10 hardly moved: its own clean image is nearest, but 11 is what it must find.
    # Image 13 has moved to class 0, 14 to its own clean image, 15 to the other image of its class.
    write(folder, "single_target_small", [0.5, 2, 79, 81], [0, 3, 4, 5])
    results = evaluate_sets(folder, ["single_target_small"], [1, 2, 4], seed=0)
    found = results["single_target_small"]
    assert list(results) == ["clean", "single_target_small"]
    assert found["recall_at_1"] == pytest.approx(2 / 4)
    # 13 meets 10, 11, then 12 of its class; 14 meets 13, 12, then 15 of its class.
    assert found["recall_at_2"] == pytest.approx(2 / 4)
    assert found["recall_at_4"] == pytest.approx(1)
    assert found["queries"] == 4


def test_finding_its_own_clean_image_is_no_hit(folder: Path) -> None:
    # Every query sits on its own clean image; with that image in the gallery each would be a hit.
    write(folder, "untargeted_x", [5, 40, 76], [1, 2, 3])
    found = evaluate_sets(folder, ["untargeted_x"], [1], seed=0)["untargeted_x"]
    assert found["recall_at_1"] == pytest.approx(1 / 3)
    write(folder, "untargeted_y", CLEAN, [0, 1, 2, 3, 4, 5])
    results = evaluate_sets(folder, ["untargeted_y"], [1, 2], seed=0)
    for k in (1, 2):
        assert results["untargeted_y"][f"recall_at_{k}"] == results["clean"][f"recall_at_{k}"]


def test_the_second_protocol_searches_among_adversarial_images(folder: Path) -> None:
    # Each far from its clean class, but beside the other image of its class that moved along.
    write(folder, "multi_target_large", [200, 201, 250, 251], [0, 1, 2, 3])
    found = evaluate_sets(folder, ["multi_target_large"], [1, 2], seed=0)["multi_target_large"]
    assert found["recall_at_1"] == 0
    assert found["recall_at_1_all_adversarial"] == 1
    assert found["recall_at_2_all_adversarial"] == 1
    assert "recall_at_1_all_adversarial" not in evaluate_sets(folder, [], [1], seed=0)["clean"]


def test_each_set_is_measured_by_itself(folder: Path) -> None:
    write(folder, "single_target_a", [0.5, 2, 79, 81], [0, 3, 4, 5])
    write(folder, "unadversarial_b", [4, 41, 75], [0, 3, 2])
    both = evaluate_sets(folder, ["single_target_a", "unadversarial_b"], [1, 2], seed=0)
    for name in ("single_target_a", "unadversarial_b"):
        assert both[name] == evaluate_sets(folder, [name], [1, 2], seed=0)[name]
    assert both["unadversarial_b"]["recall_at_1"] == 1


def test_results_are_plain_numbers(folder: Path) -> None:
    write(folder, "single_target_a", [0.5, 2, 79, 81], [0, 3, 4, 5])
    for metrics in evaluate_sets(folder, ["single_target_a"], [1], seed=0).values():
        assert all(type(value) in (int, float) for value in metrics.values())


def test_a_missing_set(folder: Path) -> None:
    with pytest.raises(DataError, match=r"untargeted_x\.parquet does not exist: run the embed stage first$"):
        evaluate_sets(folder, ["untargeted_x"], [1], seed=0)


def test_queries_too_few_to_measure_are_one_line(folder: Path) -> None:
    write(folder, "untargeted_x", [5, 40], [1, 2])  # one image a class: no density within classes
    with pytest.raises(
        ResultError,
        match=r"untargeted_x\.parquet cannot be measured: density needs two classes, and a class with two "
        r"images \(too few adversary\.queries, ",
    ):
        evaluate_sets(folder, ["untargeted_x"], [1], seed=0)


def test_embeddings_of_a_training_that_diverged_are_one_line(tmp_path: Path) -> None:
    write(tmp_path, "clean", [0, 5, float("nan"), 76, 81, 130], [0, 1, 2, 3, 4, 5])
    with pytest.raises(
        ResultError, match=r"clean\.parquet cannot be measured: .*NaN.* a training that diverged"
    ):
        evaluate_sets(tmp_path, [], [1], seed=0)


def test_queries_search_the_gallery_of_a_data_set_that_has_one(folder: Path) -> None:
    # Ids are those of other images, so nothing is left out; class 2 has no image near its queries.
    gallery = at_angles([1, 39, 300])
    write_embeddings(folder / "gallery.parquet", [(np.array([20, 21, 22]), np.array([0, 1, 2]), gallery)])
    write(folder, "untargeted_x", [1, 2, 0, 41], [0, 1, 2, 3])
    results = evaluate_sets(folder, ["untargeted_x"], [1, 2], seed=0)
    # 10 and 11 find 20, 12 and 13 find 21, 14 finds 21 first; 15 too.
    assert results["clean"]["recall_at_1"] == pytest.approx(4 / 6)
    assert results["untargeted_x"]["recall_at_1"] == pytest.approx(3 / 4)
    assert "gallery" not in results


def test_above_the_limit_the_gap_of_the_approximate_search_is_reported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(300), 10)
    points = (rng.normal(size=(300, 8))[labels] + 0.3 * rng.normal(size=(3000, 8))).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    write_embeddings(tmp_path / "clean.parquet", [(np.arange(3000), labels, points)])
    exact = evaluate_sets(tmp_path, [], [1], seed=0)["clean"]
    near = evaluate_sets(tmp_path, [], [1], seed=0, exact_limit=1000)["clean"]
    assert set(near) - set(exact) == {"recall_at_1_gap", "map_at_r_gap", "map_at_1000_gap"}
    assert abs(near["recall_at_1_gap"]) <= 0.001
    assert near["recall_at_1"] == pytest.approx(exact["recall_at_1"], abs=0.003)
