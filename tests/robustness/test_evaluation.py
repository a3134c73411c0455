from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray

from mdprop.attacks import Threat
from mdprop.config.schema import EvaluateSettings
from mdprop.data.stores.adversarial import Attacked, write_adversarial
from mdprop.data.stores.embeddings import write_embeddings
from mdprop.data.stores.queries import read_queries, write_queries
from mdprop.errors import DataError, ResultError
from mdprop.metrics import clustering_scores, embedding_density, mean_average_precision, spectral_decay
from mdprop.robustness.evaluation import evaluate_run
from mdprop.runs import Run

IDS = np.array([10, 11, 12, 13, 14, 15])
LABELS = np.array([0, 0, 1, 1, 2, 2])
ATTACKED = ("moved", "moved_in_attack", "objective", "size", "outside", "zero_gradient", "broken_gradient")
CLEAN = [0, 5, 40, 76, 81, 130]  # degrees


def at_angles(degrees: list[float]) -> NDArray[np.float32]:
    radians = np.deg2rad(degrees)
    return np.stack([np.cos(radians), np.sin(radians), 0 * radians], axis=1).astype(np.float32)


def write(
    run: Run, name: str, degrees: list[float], rows: list[int], branch: str = "clean", aims: int = 15
) -> None:
    path = run.embeddings(branch, name)
    write_embeddings(path, [(IDS[rows], LABELS[rows], at_angles(degrees))])
    if name not in ("clean", "gallery"):
        ids, labels = torch.from_numpy(IDS[rows]), torch.from_numpy(LABELS[rows])
        images, looked_at = torch.zeros(len(rows), 1, 2, 2), torch.full_like(ids, aims)[None]
        numbers = (ids / 100, ids / 200, ids / 300, ids / 400)
        part = Attacked(ids, labels, images, *numbers, looked_at, ids == 10, ids == 0)
        write_adversarial(run.adversarial(branch, name), [part], {})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run("mdprop", 0, tmp_path)
    write(run, "clean", CLEAN, [0, 1, 2, 3, 4, 5])
    return run


def settings(ks: tuple[int, ...] = (1,), seed: int = 0, exact_limit: int = 10**6) -> EvaluateSettings:
    return EvaluateSettings(ks=ks, seed=seed, exact_limit=exact_limit)


def threats(*names: str, goal: str = "single_target") -> dict[str, Threat]:
    return {name: Threat(goal=goal, epsilon=0.1) for name in names}


def measured(run: Run, *names: str, **options: Any) -> dict[str, dict[str, float]]:
    return evaluate_run(run, ["clean"], threats(*names), settings(**options))[0]


def test_clean_images_search_all_others(run: Run) -> None:
    results = measured(run, ks=(1, 2, 4))
    assert list(results) == ["clean"]
    clean = results["clean"]
    # The nearest is right for 10, 11 and 15; the second for 12 and 13; the third for 14.
    assert clean["recall_at_1"] == pytest.approx(3 / 6)
    assert clean["recall_at_2"] == pytest.approx(5 / 6)
    assert clean["recall_at_4"] == pytest.approx(1)
    assert clean["queries"] == 6


def test_the_other_measures_are_those_of_the_embeddings(run: Run) -> None:
    clean = measured(run, seed=3)["clean"]
    embeddings = at_angles(CLEAN)
    expected = {
        "map_at_r": mean_average_precision(embeddings, LABELS, depth="R"),
        "map_at_1000": mean_average_precision(embeddings, LABELS, depth=1000),
        **clustering_scores(embeddings, LABELS, seed=3),
        **{f"density_{key}": value for key, value in embedding_density(embeddings, LABELS).items()},
        "spectral_decay": spectral_decay(embeddings),
    }
    assert {key: clean[key] for key in expected} == pytest.approx(expected)
    assert set(clean) == {*expected, "recall_at_1", "queries", "queries_with_partner"}


def test_adversarial_queries_search_the_clean_gallery_without_their_own_image(run: Run) -> None:
    # Image 10 hardly moved: its own clean image is nearest, but 11 is what it must find.
    # Image 13 has moved to class 0, 14 to its own clean image, 15 to the other image of its class.
    write(run, "small", [0.5, 2, 79, 81], [0, 3, 4, 5])
    results = measured(run, "small", ks=(1, 2, 4))
    found = results["small"]
    assert list(results) == ["clean", "small", "worst_case"]
    assert results["worst_case"] == {"recall_at_1": found["recall_at_1"], "queries": 4}
    assert found["recall_at_1"] == pytest.approx(2 / 4)
    # 13 meets 10, 11, then 12 of its class; 14 meets 13, 12, then 15 of its class.
    assert found["recall_at_2"] == pytest.approx(2 / 4)
    assert found["recall_at_4"] == pytest.approx(1)
    assert found["queries"] == 4


def test_finding_its_own_clean_image_is_no_hit(run: Run) -> None:
    # Every query sits on its own clean image; with that image in the gallery each would be a hit.
    write(run, "x", [5, 40, 76], [1, 2, 3])
    assert measured(run, "x")["x"]["recall_at_1"] == pytest.approx(1 / 3)
    write(run, "y", CLEAN, [0, 1, 2, 3, 4, 5])
    results = measured(run, "y", ks=(1, 2))
    for k in (1, 2):
        assert results["y"][f"recall_at_{k}"] == results["clean"][f"recall_at_{k}"]


def test_the_second_protocol_searches_among_adversarial_images(run: Run) -> None:
    # Each far from its clean class, but beside the other image of its class that moved along.
    write(run, "large", [200, 201, 250, 251], [0, 1, 2, 3])
    found = measured(run, "large", ks=(1, 2))["large"]
    assert found["recall_at_1"] == 0
    assert found["recall_at_1_all_adversarial"] == 1
    assert found["recall_at_2_all_adversarial"] == 1
    assert "recall_at_1_all_adversarial" not in measured(run)["clean"]


def test_each_set_is_measured_by_itself(run: Run) -> None:
    write(run, "a", [0.5, 2, 79, 81], [0, 3, 4, 5])
    write(run, "b", [4, 41, 75], [0, 3, 2])
    both = measured(run, "a", "b", ks=(1, 2))
    for name in ("a", "b"):
        assert both[name] == measured(run, name, ks=(1, 2))[name]
    assert both["b"]["recall_at_1"] == 1


def test_how_far_an_attack_got(run: Run) -> None:
    # All look at image 15, at 130 degrees: 10 covers the way from 130 to 65, 13 does not move.
    write(run, "a", [65, 76, 0], [0, 3, 1])
    found = measured(run, "a")["a"]
    assert found["objective"] == pytest.approx((0.10 + 0.13 + 0.11) / 3)
    chord = lambda degrees: 2 * np.sin(np.deg2rad(degrees) / 2)  # noqa: E731
    assert found["moved"] == pytest.approx((chord(65) + chord(5)) / 3, rel=1e-5)
    before, after = (chord(130), chord(54), chord(125)), (chord(65), chord(54), chord(130))
    approach = np.mean([1 - b / a for a, b in zip(before, after, strict=True)])
    assert found["approach"] == pytest.approx(approach, rel=1e-5)
    flight = evaluate_run(run, ["clean"], threats("a", goal="untargeted"), settings())[0]["a"]
    assert "approach" not in flight and flight["moved"] == found["moved"]


def test_the_worst_case_is_right_under_every_attack_that_harms(run: Run) -> None:
    write(run, "a", [0.5, 2, 79, 81], [0, 3, 4, 5])
    write(run, "b", [45, 5, 45, 130], [0, 1, 2, 5])
    write(run, "help", [90, 91, 10, 11], [0, 1, 2, 3])
    own = {**threats("a", "b"), **threats("help", goal="unadversarial")}
    metrics, parts = evaluate_run(run, ["clean"], own, settings())
    hits = {p["set"][0]: dict(zip(p["id"], p["hit"], strict=True)) for p in parts}
    common = sorted(set(hits["a"]) & set(hits["b"]))
    assert parts[-1]["id"].tolist() == common
    assert parts[-1]["hit"].tolist() == [hits["a"][i] and hits["b"][i] for i in common]
    assert metrics["worst_case"]["recall_at_1"] == np.mean(parts[-1]["hit"])


def test_an_attack_on_the_gallery_has_measures_of_its_goal_only(run: Run) -> None:
    write(run, "up", [0, 5, 40], [0, 1, 2])
    metrics, parts = evaluate_run(run, ["clean"], threats("up", goal="ca_plus"), settings())
    measures = {"queries", *ATTACKED, "rank_percent"}
    assert set(metrics["up"]) == measures
    assert "hit" not in parts[1] and len(parts[1]["rank_percent"]) == 3


def test_every_mean_is_one_over_the_queries(run: Run) -> None:
    write(run, "a", [0.5, 2, 41, 79, 81], [0, 3, 2, 4, 5])
    write(run, "b", [4, 41, 75], [0, 3, 2])
    metrics, parts = evaluate_run(run, ["clean"], threats("a", "b"), settings((1, 2, 4)))
    write_queries(run.queries, parts)
    table = read_queries(run.queries)
    assert table.column_names[:4] == ["set", "branch", "id", "label"]
    rows = table.to_pylist()
    assert [row["id"] for row in rows if row["set"] == "a"] == IDS[[0, 3, 2, 4, 5]].tolist()
    for name, count in (("clean", 6), ("a", 5), ("b", 3)):
        own = [row for row in rows if row["set"] == name]
        assert len(own) == count
        found = metrics[name]
        assert found["recall_at_1"] == np.mean([row["hit"] for row in own])
        for k in (1, 2, 4):
            assert found[f"recall_at_{k}"] == np.mean([1 <= row["rank"] <= k for row in own])
        assert found["map_at_r"] == pytest.approx(np.mean([row["average_precision"] for row in own]))
        assert found["map_at_1000"] == pytest.approx(np.mean([row["average_precision_1000"] for row in own]))
        attacked = (*ATTACKED, "approach")
        if name == "clean":
            assert all(row[key] is None for row in own for key in (*attacked, "rank_all_adversarial"))
            continue
        if name == "a":
            paired = [row for row in own if row["label"] != 0]  # 10 is alone in its class
            among = np.mean([1 <= row["rank_all_adversarial"] <= 2 for row in paired])
            assert found["recall_at_2_all_adversarial"] == among
        for key in attacked:
            assert found[key] == pytest.approx(np.mean([row[key] for row in own]), rel=1e-6)


def test_each_branch_has_a_gallery_of_its_own(run: Run) -> None:
    write(run, "a", [0.5, 2, 79, 81], [0, 3, 4, 5])
    for name, degrees, rows in (
        ("clean", [0, 1, 40, 41, 80, 81], range(6)),
        ("a", [0, 40, 80, 81], [0, 2, 4, 5]),
    ):
        write(run, name, degrees, list(rows), branch="multi_target")
    metrics, parts = evaluate_run(run, ["clean", "multi_target"], threats("a"), settings())
    assert list(metrics) == [
        "clean",
        "a",
        "worst_case",
        "clean@multi_target",
        "a@multi_target",
        "worst_case@multi_target",
    ]
    assert metrics["clean"] == measured(run)["clean"]
    assert metrics["clean@multi_target"]["recall_at_1"] == metrics["a@multi_target"]["recall_at_1"] == 1
    assert [(part["set"][0], part["branch"][0]) for part in parts] == [
        ("clean", "clean"),
        ("a", "clean"),
        ("worst_case", "clean"),
        ("clean", "multi_target"),
        ("a", "multi_target"),
        ("worst_case", "multi_target"),
    ]


def test_results_are_plain_numbers(run: Run) -> None:
    write(run, "a", [0.5, 2, 79, 81], [0, 3, 4, 5])
    for metrics in measured(run, "a").values():
        assert all(type(value) in (int, float) for value in metrics.values())


def test_a_missing_set(run: Run) -> None:
    with pytest.raises(DataError, match=r"x\.parquet does not exist: run the embed stage first$"):
        measured(run, "x")


def test_images_that_are_not_those_that_were_attacked(run: Run) -> None:
    write(run, "a", [0.5, 2, 79, 81], [0, 3, 4, 5])
    rows = [0, 3, 4, 2]
    write_embeddings(run.embeddings("clean", "a"), [(IDS[rows], LABELS[rows], at_angles([1, 2, 3, 4]))])
    with pytest.raises(ResultError, match=r"hold different images: run the embed stage again$"):
        measured(run, "a")


def test_queries_too_few_to_measure_are_one_line(run: Run) -> None:
    write(run, "x", [5], [1])  # one singular value: no spectrum
    with pytest.raises(ResultError, match=r"x\.parquet cannot be measured: .*\(too few images, "):
        measured(run, "x")


def test_embeddings_of_a_training_that_diverged_are_one_line(tmp_path: Path) -> None:
    run = Run("at", 1, tmp_path)
    with pytest.raises(ResultError, match=r"clean\.parquet: embeddings are not finite.* training diverged"):
        write(run, "clean", [0, 5, float("nan"), 76, 81, 130], [0, 1, 2, 3, 4, 5])


def test_queries_search_the_gallery_of_a_data_set_that_has_one(run: Run) -> None:
    # Ids are those of other images, so nothing is left out; class 2 has no image near its queries.
    gallery = at_angles([1, 39, 300])
    path = run.embeddings("clean", "gallery")
    write_embeddings(path, [(np.array([20, 21, 22]), np.array([0, 1, 2]), gallery)])
    write(run, "x", [1, 2, 0, 41], [0, 1, 2, 3])
    results = measured(run, "x", ks=(1, 2))
    # 10 and 11 find 20, 12 and 13 find 21, 14 finds 21 first; 15 too.
    assert results["clean"]["recall_at_1"] == pytest.approx(4 / 6)
    assert results["x"]["recall_at_1"] == pytest.approx(3 / 4)
    assert "gallery" not in results


def test_above_the_limit_the_gap_of_the_approximate_search_is_reported(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(300), 10)
    points = (rng.normal(size=(300, 8))[labels] + 0.3 * rng.normal(size=(3000, 8))).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    run = Run("at", 1, tmp_path)
    write_embeddings(run.embeddings("clean", "clean"), [(np.arange(3000), labels, points)])
    exact, near = measured(run)["clean"], measured(run, exact_limit=1000)["clean"]
    assert set(near) - set(exact) == {"recall_at_1_gap", "map_at_r_gap", "map_at_1000_gap"}
    assert abs(near["recall_at_1_gap"]) <= 0.001
    assert near["recall_at_1"] == pytest.approx(exact["recall_at_1"], abs=0.003)


@pytest.mark.parametrize("share", [None, 0.0, 0.5])
def test_queries_that_are_missing_or_damaged_are_one_line(run: Run, share: float | None) -> None:
    write_queries(run.queries, evaluate_run(run, ["clean"], {}, settings())[1])
    assert isinstance(read_queries(run.queries), pa.Table)
    data = run.queries.read_bytes()
    run.queries.unlink()
    if share is not None:
        run.queries.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ResultError, match=r"queries\.parquet .*run `dvc repro`"):
        read_queries(run.queries)


def test_among_themselves_only_queries_with_a_partner_count(run: Run) -> None:
    # 10 and 11, 12 and 13 are pairs next to each other; 14 is alone in its class, and lies beside 12.
    write(run, "some", [0, 1, 40, 41, 40.4], [0, 1, 2, 3, 4])
    pairs = (at_angles([0, 1, 40, 41]), LABELS[:4])
    found = measured(run, "some", ks=(1, 2))["some"]
    assert (found["queries"], found["queries_with_partner"]) == (5, 4)
    assert found["recall_at_1_all_adversarial"] == pytest.approx(2 / 4)
    assert found["recall_at_2_all_adversarial"] == 1
    expected = {
        **clustering_scores(*pairs, seed=0),
        **{f"density_{key}": value for key, value in embedding_density(*pairs).items()},
        "spectral_decay": spectral_decay(at_angles([0, 1, 40, 41, 40.4])),
    }
    assert {key: found[key] for key in expected} == pytest.approx(expected)


def test_a_perfect_network_has_all_of_them(run: Run) -> None:
    write(run, "some", [0, 0, 40, 40, 80], [0, 1, 2, 3, 4])
    found = measured(run, "some")["some"]
    assert (found["recall_at_1_all_adversarial"], found["nmi"], found["f1"]) == (1, 1, 1)


@pytest.mark.parametrize("rows", [[0, 2, 4], [0, 1, 4]])
def test_what_cannot_be_measured_among_them_is_left_out(run: Run, rows: list[int]) -> None:
    write(run, "few", [CLEAN[row] for row in rows], rows)
    found = measured(run, "few")["few"]
    assert not {"nmi", "f1", "density_ratio", "recall_at_1_all_adversarial"} & set(found)
    assert {"recall_at_1", "map_at_r", "spectral_decay", "moved"} <= set(found)
    assert found["queries_with_partner"] == (2 if rows == [0, 1, 4] else 0)
