from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mdprop.attacks import GOALS, Threat, feature_attack, target_rows
from mdprop.data.loading import transforms
from mdprop.data.stores.adversarial import Attacked
from mdprop.data.stores.images import ImageStore
from mdprop.layers import extract_branch, multi_batchnorms, route
from mdprop.models import Embedder
from mdprop.robustness import generation
from mdprop.robustness.generation import Adversary
from mdprop.robustness.sampling import sample_rows
from tests.helpers import small_embedder, small_store

TRANSFORM = transforms.test_transform(16, 16)
QUERIES = 7


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return small_store(tmp_path_factory.mktemp("store") / "test.arrow", classes=5, images=3)


def model_with(*branches: str) -> Embedder:
    """In float64, so that rounding does not decide the sign of a gradient."""
    return small_embedder(branches or ("clean",)).double().eval()


def threat(goal: str = "multi_target", **changes: Any) -> Threat:
    return Threat(**{"goal": goal, "epsilon": 0.05, "steps": 3, "step_ratio": 0.5, "targets": 3, **changes})


def generated(
    model: Embedder, store: ImageStore, aim: Threat, seed: int = 0, queries: int = QUERIES
) -> Attacked:
    adversary = Adversary(model, store, TRANSFORM, {"set": aim}, queries, seed)
    parts = zip(*adversary.attack("set"), strict=True)
    columns = zip(Attacked._fields, parts, strict=True)
    return Attacked(*(torch.cat(part, dim=1 if name == "aims" else 0) for name, part in columns))


def rows_of(store: ImageStore, ids: Tensor) -> list[int]:
    return [store.ids.tolist().index(i) for i in ids.flatten().tolist()]


def images_of(store: ImageStore, ids: Tensor) -> Tensor:
    return transforms.to_float(torch.stack([TRANSFORM(store.image(row)) for row in rows_of(store, ids)]))


# --- what is attacked ---


def test_ids_and_labels_are_those_of_the_sampled_rows(store: ImageStore) -> None:
    found = generated(model_with(), store, threat())
    rows = sample_rows(15, QUERIES, 0)
    assert found.ids.tolist() == store.ids[rows].tolist()
    assert found.labels.tolist() == store.labels[rows].tolist()
    assert found.images.shape == (7, 1, 16, 16)
    assert found.images.dtype == torch.float32


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("changes", [{"epsilon": 0.0}, {}, {"epsilon": 0.2, "units": "normalized"}])
def test_images_stay_in_the_ball_and_in_range(store: ImageStore, goal: str, changes: dict[str, Any]) -> None:
    found = generated(model_with(), store, threat(goal, **changes))
    moved = (found.images - images_of(store, found.ids)).abs()
    assert moved.max() == pytest.approx(changes.get("epsilon", 0.05) and 0.05, abs=1e-6)
    assert found.images.min() >= 0
    assert found.images.max() <= 1


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("epsilon", [0.0, 0.5])
def test_images_stay_in_the_euclidean_ball(store: ImageStore, goal: str, epsilon: float) -> None:
    found = generated(model_with(), store, threat(goal, norm="l2", epsilon=epsilon, steps=6))
    moved = (found.images - images_of(store, found.ids)).flatten(1).norm(dim=1)
    assert (moved <= epsilon + 1e-5).all()
    assert moved.min() >= 0.7 * epsilon
    assert found.images.min() >= 0
    assert found.images.max() <= 1


def test_an_attack_is_the_feature_attack_from_a_seeded_start(store: ImageStore) -> None:
    model = model_with()
    found = generated(model, store, threat())
    rows = sample_rows(15, QUERIES, 0)
    draws = torch.Generator().manual_seed(0)
    aims = target_rows(torch.from_numpy(store.labels), torch.from_numpy(rows), 3, "other_class", draws)
    assert found.aims.tolist() == store.ids[aims.numpy()].tolist()
    with torch.no_grad():
        targets = model(images_of(store, torch.from_numpy(store.ids)))[aims]
    clean = images_of(store, found.ids)
    noise = [np.random.default_rng([0, int(i)]).uniform(-1, 1, (1, 16, 16)) for i in found.ids]
    start = torch.from_numpy(np.stack(noise)).float() * 0.05
    expected = feature_attack(
        model, clean, targets, epsilon=0.05, steps=3, step_size=0.025, lower=0.0, upper=1.0, start=start
    )
    assert_close(found.images, expected, rtol=0, atol=1e-7)
    with torch.no_grad():
        assert_close(found.objective.double(), (model(found.images) - targets).norm(dim=-1).mean(0))


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("restarts", [1, 3])
def test_the_size_of_a_batch_does_not_matter(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch, size: int, restarts: int
) -> None:
    aim = threat(restarts=restarts)
    expected = generated(model_with(), store, aim)
    monkeypatch.setattr(generation, "BATCH_SIZE", size)
    adversary = Adversary(model_with(), store, TRANSFORM, {"set": aim}, QUERIES, 0)
    sizes = [min(size, 7 - start) for start in range(0, 7, size)]
    assert [len(part.ids) for part in adversary.attack("set")] == sizes
    for tensor, value in zip(generated(model_with(), store, aim), expected, strict=True):
        assert torch.equal(tensor, value)


def test_one_threat_does_not_change_another(store: ImageStore) -> None:
    model = model_with()
    threats = {"a": threat("untargeted"), "set": threat(), "b": threat("unadversarial")}
    together = Adversary(model, store, TRANSFORM, threats, QUERIES, 0)
    images = torch.cat([part.images for part in together.attack("set")])
    assert torch.equal(images, generated(model, store, threat()).images)


def test_the_seed_draws_targets_and_starts(store: ImageStore) -> None:
    images = [generated(model_with(), store, threat(), seed, queries=0).images for seed in (0, 0, 1)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])
    torch.manual_seed(9)
    assert torch.equal(generated(model_with(), store, threat(), queries=0).images, images[0])


def test_more_restarts_never_reach_less(store: ImageStore) -> None:
    model = model_with()
    reached = [
        generated(model, store, threat("untargeted", restarts=restarts)).objective for restarts in (1, 2, 5)
    ]
    assert (reached[1] <= reached[0]).all()
    assert (reached[2] <= reached[1]).all()
    assert (reached[2] < reached[0]).any()


def test_the_batches_of_some_turns(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "BATCH_SIZE", 2)
    adversary = Adversary(model_with(), store, TRANSFORM, {"set": threat()}, QUERIES, 0)
    expected = list(adversary.attack("set"))
    monkeypatch.setattr(generation, "turns", lambda: slice(1, None, 3))
    (found,) = adversary.attack("set")
    assert len(expected) == 4
    for tensor, value in zip(found, expected[1], strict=True):
        assert torch.equal(tensor, value)


# --- through which branch ---


@pytest.mark.parametrize("training", [True, False])
def test_the_attack_is_white_box_through_the_model_as_it_is(store: ImageStore, training: bool) -> None:
    model = model_with("clean", "single_target", "multi_target")
    expected = generated(extract_branch(model), store, threat()).images
    for norm in multi_batchnorms(model):
        for name in ("single_target", "multi_target"):
            norm.branches[name].weight.data.fill_(float("nan"))
    before = copy.deepcopy(model.state_dict())
    assert torch.equal(generated(model.train(training), store, threat()).images, expected)
    assert not model.training
    for key, value in model.state_dict().items():
        assert torch.equal(value.nan_to_num(9), before[key].nan_to_num(9))


def test_a_branch_of_its_own_is_attacked_like_its_route(store: ImageStore) -> None:
    model = model_with("clean", "multi_target")
    clean = generated(model, store, threat()).images
    alone = generated(extract_branch(model, "multi_target"), store, threat()).images
    with route(model, "multi_target"):
        assert torch.equal(generated(model, store, threat()).images, alone)
    assert not torch.equal(alone, clean)


# --- towards what ---


@pytest.mark.parametrize(
    ("goal", "count", "same_class"),
    [("single_target", 1, False), ("multi_target", 3, False), ("unadversarial", 1, True)],
)
def test_what_images_look_at_follows_the_goal(
    store: ImageStore, goal: str, count: int, same_class: bool
) -> None:
    found = generated(model_with(), store, threat(goal))
    assert found.aims.shape == (count, 7)
    labels = dict(zip(store.ids.tolist(), store.labels.tolist(), strict=True))
    for query, aims in zip(found.ids.tolist(), found.aims.T.tolist(), strict=True):
        assert len(set(aims)) == count
        assert query not in aims
        assert all((labels[aim] == labels[query]) == same_class for aim in aims)
    # Targets come from the whole store, not only from the images that are attacked.
    assert same_class or not set(found.aims.flatten().tolist()) <= set(found.ids.tolist())


def test_untargeted_images_flee_from_their_own_clean_embedding(store: ImageStore) -> None:
    found = generated(model_with(), store, threat("untargeted"))
    assert found.aims.tolist() == [found.ids.tolist()]
    assert (found.objective < 0).all()


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("optimizer", ["pgd", "apgd", "square"])
def test_objectives_become_small(store: ImageStore, goal: str, norm: str, optimizer: str) -> None:
    model = model_with()
    options = {"norm": norm, "optimizer": optimizer, "steps": 20 if optimizer == "square" else 4}
    found = generated(model, store, threat(goal, epsilon=0.02 if norm == "linf" else 0.2, **options))
    before = generated(model, store, threat(goal, epsilon=0.0, **options))
    assert found.ids.tolist() == before.ids.tolist()
    assert found.aims.tolist() == before.aims.tolist()
    assert found.objective.mean() <= before.objective.mean()
    assert (found.objective < before.objective).any() or (before.objective == 0).all()


@pytest.mark.parametrize(
    "changes", [{}, {"norm": "l2", "epsilon": 0.4}, {"epsilon": 0.2, "units": "normalized"}]
)
def test_what_the_attack_did_is_measured(store: ImageStore, changes: dict[str, Any]) -> None:
    model = model_with()
    found = generated(model, store, threat("untargeted", **changes))
    clean = images_of(store, found.ids)
    shift = (found.images - clean).flatten(1)
    size = shift.norm(dim=1) / 0.4 if "norm" in changes else shift.abs().amax(1) / 0.05
    assert_close(found.size, size.float())
    assert (found.size <= 1 + 1e-5).all()
    with torch.no_grad():
        assert_close(found.moved, (model(found.images) - model(clean)).norm(dim=1).float())


def test_noise_is_as_large_as_the_attack_and_does_less(store: ImageStore) -> None:
    model = model_with()
    noise, attack = (generated(model, store, threat("untargeted", optimizer=o)) for o in ("noise", "pgd"))
    moved = (noise.images - images_of(store, noise.ids)).abs().flatten(1).amax(1)
    assert_close(moved, torch.full_like(moved, 0.05))
    assert attack.objective.mean() < noise.objective.mean()


def test_gradients_that_are_zero_or_not_finite_are_counted(store: ImageStore) -> None:
    assert not generated(model_with(), store, threat()).zero_gradient.any()
    flat, broken = model_with(), model_with()
    flat.network.fc.register_forward_hook(lambda _, __, y: (y * 4).round() + 0 * y)
    assert generated(flat, store, threat()).zero_gradient.all()
    broken.network.fc.register_full_backward_hook(lambda _, g, __: (g[0] * float("nan"),))
    assert generated(broken, store, threat()).broken_gradient.all()


def test_robranks_protocol_starts_at_the_clean_image(store: ImageStore) -> None:
    aim = threat("es", protocol="robrank", start_noise=0)
    found = generated(model_with(), store, aim)
    assert (found.objective < 0).all()


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
    images = generated(model_with().float(), store, threat()).images
    expected = generated(model_with(), store, threat()).images
    # Rounding may turn the sign of a gradient near 0.
    assert ((images - expected).abs() > 1e-5).float().mean() < 0.01
    assert_close(images.mean(), expected.mean(), rtol=1e-3, atol=0)
