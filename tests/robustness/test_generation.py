from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mdprop.attacks import feature_attack
from mdprop.data import transforms
from mdprop.data.stores.images import ImageStore
from mdprop.layers import extract_branch, multi_batchnorms, route
from mdprop.methods import GOALS, Goal
from mdprop.robustness import generation
from mdprop.robustness.generation import Threat, generate_set, sample_rows
from tests.helpers import small_embedder, small_store

TRANSFORM = transforms.test_transform(16, 16)
CPU = torch.device("cpu")
ROWS = np.array([0, 2, 3, 7, 8, 11, 14])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return small_store(tmp_path_factory.mktemp("store") / "test.arrow", classes=5, images=3)


def model_with(*branches: str) -> nn.Module:
    """In float64, so that rounding does not decide the sign of a gradient."""
    return small_embedder(branches or ("clean",)).double().eval()


def threat(goal: Goal = "multi_target", **changes: Any) -> Threat:
    return Threat(**{"goal": goal, "epsilon": 0.05, "steps": 3, "step_ratio": 0.5, "targets": 3, **changes})


def generated(
    model: nn.Module, store: ImageStore, aim: Threat, seed: int = 0, rows: Any = ROWS
) -> tuple[Tensor, Tensor, Tensor]:
    batches = generate_set(model, store, rows, TRANSFORM, aim, seed, CPU)
    ids, labels, images = (torch.cat(column) for column in zip(*batches, strict=True))
    return ids, labels, images


def clean_images(store: ImageStore, rows: Any = ROWS) -> Tensor:
    return transforms.to_float(torch.stack([TRANSFORM(store.image(int(row))) for row in rows]))


@pytest.fixture
def attacks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `feature_attack` is called with."""
    calls: list[dict[str, Any]] = []

    def spy(embed: Any, images: Tensor, targets: Tensor, **options: Any) -> Tensor:
        calls.append({"images": images, "targets": targets, **options})
        return feature_attack(embed, images, targets, **options)

    monkeypatch.setattr(generation, "feature_attack", spy)
    return calls


# --- what is attacked ---


def test_ids_and_labels_are_those_of_the_rows(store: ImageStore) -> None:
    ids, labels, images = generated(model_with(), store, threat())
    assert ids.tolist() == store.ids[ROWS].tolist()
    assert labels.tolist() == store.labels[ROWS].tolist()
    assert images.shape == (7, 1, 16, 16)
    assert images.dtype == torch.float32


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("epsilon", [0.0, 0.05, torch.full((1, 1, 1), 0.05)])
def test_images_stay_in_the_ball_and_in_range(store: ImageStore, goal: Goal, epsilon: Any) -> None:
    _, _, images = generated(model_with(), store, threat(goal, epsilon=epsilon))
    moved = (images - clean_images(store)).abs()
    assert moved.max() <= float(epsilon) + 1e-6
    assert images.min() >= 0
    assert images.max() <= 1
    assert moved.max() == pytest.approx(float(epsilon), abs=1e-6)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_size_of_a_batch_does_not_matter(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    expected = generated(model_with(), store, threat())
    monkeypatch.setattr(generation, "BATCH_SIZE", size)
    assert [len(b[0]) for b in generate_set(model_with(), store, ROWS, TRANSFORM, threat(), 0, CPU)] == [
        min(size, 7 - start) for start in range(0, 7, size)
    ]
    for tensor, value in zip(generated(model_with(), store, threat()), expected, strict=True):
        assert torch.equal(tensor, value)


def test_the_seed_draws_targets_and_starts(store: ImageStore) -> None:
    images = [generated(model_with(), store, threat(), seed)[2] for seed in (0, 0, 1)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    torch.manual_seed(9)
    assert torch.equal(generated(model_with(), store, threat())[2], images[0])


def test_the_start_of_an_image_depends_on_its_id_alone(
    store: ImageStore, attacks: list[dict[str, Any]]
) -> None:
    generated(model_with(), store, threat())
    generated(model_with(), store, threat(), rows=ROWS[[4, 2]])
    assert torch.equal(attacks[1]["start"], attacks[0]["start"][[4, 2]])
    starts = attacks[0]["start"]
    assert starts.abs().max() <= 0.05
    assert starts.abs().max() > 0.045
    assert len({start.numpy().tobytes() for start in starts}) == 7


def test_the_batches_of_some_turns(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "BATCH_SIZE", 2)
    expected = list(generate_set(model_with(), store, ROWS, TRANSFORM, threat(), 0, CPU))
    found = list(generate_set(model_with(), store, ROWS, TRANSFORM, threat(), 0, CPU, slice(1, None, 3)))
    assert len(expected) == 4
    assert_close(found, [expected[1]], rtol=0, atol=0)


# --- through which branch ---


@pytest.mark.parametrize("training", [True, False])
def test_the_attack_is_white_box_through_the_clean_branch(store: ImageStore, training: bool) -> None:
    model = model_with("clean", "single_target", "multi_target")
    expected = generated(extract_branch(model), store, threat())[2]
    for norm in multi_batchnorms(model):
        for name in ("single_target", "multi_target"):
            norm.branches[name].weight.data.fill_(float("nan"))
    before = copy.deepcopy(model.state_dict())
    assert torch.equal(generated(model.train(training), store, threat())[2], expected)
    assert not model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value.nan_to_num(9), before[key].nan_to_num(9))


def test_another_branch_would_make_other_images(store: ImageStore) -> None:
    model = model_with("clean", "multi_target")
    clean = generated(model, store, threat())[2]
    with route(model, "multi_target"):
        assert not torch.equal(generated(model, store, threat())[2], clean)


# --- towards what ---


def aimed_rows(model: nn.Module, store: ImageStore, targets: Tensor) -> Tensor:
    """The rows of the store whose clean embeddings the targets [T, Q, D] are: [T, Q]."""
    with torch.no_grad():
        embeddings = model(clean_images(store, range(len(store))))
    distances = torch.cdist(targets.flatten(0, 1), embeddings)
    assert distances.min(1).values.max() < 1e-6
    return distances.argmin(1).view(targets.shape[:2])


@pytest.mark.parametrize(
    ("goal", "count", "same_class"),
    [("single_target", 1, False), ("multi_target", 3, False), ("unadversarial", 1, True)],
)
def test_targets_are_clean_embeddings_by_the_goal(
    store: ImageStore, attacks: list[dict[str, Any]], goal: Goal, count: int, same_class: bool
) -> None:
    model = model_with()
    generated(model, store, threat(goal))
    (call,) = attacks
    rows = aimed_rows(model, store, call["targets"])
    assert rows.shape == (count, 7)
    assert not call["away"]
    for query, aims in zip(ROWS.tolist(), rows.T.tolist(), strict=True):
        assert len(set(aims)) == count
        assert query not in aims
        assert all((store.labels[aim] == store.labels[query]) == same_class for aim in aims)
    # Targets come from the whole store, not only from the images that are attacked.
    assert same_class or not set(rows.flatten().tolist()) <= set(ROWS.tolist())


def test_untargeted_images_flee_from_their_own_clean_embedding(
    store: ImageStore, attacks: list[dict[str, Any]]
) -> None:
    model = model_with()
    generated(model, store, threat("untargeted"))
    (call,) = attacks
    assert call["away"]
    assert aimed_rows(model, store, call["targets"]).tolist() == [ROWS.tolist()]


def test_epsilon_steps_and_their_size_are_those_of_the_threat(
    store: ImageStore, attacks: list[dict[str, Any]]
) -> None:
    generated(model_with(), store, threat(epsilon=0.04, steps=6, step_ratio=0.25))
    generated(model_with(), store, threat(epsilon=torch.full((1, 1, 1), 0.04), steps=6, step_ratio=0.25))
    for call in attacks:
        assert float(call["epsilon"]) == pytest.approx(0.04)
        assert float(call["step_size"]) == pytest.approx(0.01)
        assert (call["steps"], call["lower"], call["upper"]) == (6, 0.0, 1.0)


@pytest.mark.parametrize("goal", GOALS)
def test_embeddings_move_as_the_goal_says(
    store: ImageStore, attacks: list[dict[str, Any]], goal: Goal
) -> None:
    model = model_with()
    _, _, images = generated(model, store, threat(goal, epsilon=0.01))
    (call,) = attacks
    with torch.no_grad():
        before, after = (
            torch.linalg.vector_norm(model(x) - call["targets"], dim=-1).mean()
            for x in (clean_images(store), images)
        )
    assert after > before if goal == "untargeted" else after < before


# --- which images ---


@pytest.mark.parametrize(("count", "queries"), [(10, 0), (10, 10), (10, 99), (0, 5)])
def test_all_rows(count: int, queries: int) -> None:
    assert sample_rows(count, queries, seed=0).tolist() == list(range(count))


def test_a_seeded_sample_of_rows() -> None:
    rows = sample_rows(1000, 50, seed=3)
    assert len(set(rows.tolist())) == 50
    assert rows.tolist() == sorted(rows.tolist())
    assert 0 <= rows.min() < 100 < 900 < rows.max() < 1000
    assert rows.tolist() == sample_rows(1000, 50, seed=3).tolist()
    assert rows.tolist() != sample_rows(1000, 50, seed=4).tolist()


def test_a_model_in_float32_gives_the_same_set(store: ImageStore) -> None:
    images = generated(model_with().float(), store, threat())[2]
    expected = generated(model_with(), store, threat())[2]
    # Rounding may turn the sign of a gradient near 0.
    assert ((images - expected).abs() > 1e-5).float().mean() < 0.01
    assert_close(images.mean(), expected.mean(), rtol=1e-3, atol=0)
