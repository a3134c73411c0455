"""Training, attacks and files of two processes against those of one."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mdprop.attacks.threat import Threat
from mdprop.config.attacks import AttackSettings
from mdprop.config.schema import LearningRates, TrainSettings
from mdprop.data.loading import datasets, transforms
from mdprop.data.loading.datasets import TrainImages, store_batches, train_loader
from mdprop.data.loading.samplers import ClassBalancedSampler
from mdprop.data.stores.adversarial import read_adversarial, write_adversarial
from mdprop.data.stores.images import ImageStore
from mdprop.losses import build_loss
from mdprop.methods import METHODS
from mdprop.parallel.batchnorm import synchronize_batchnorm
from mdprop.parallel.exchange import from_main, share_gradients, turns, world_size, write_in_order
from mdprop.parallel.rows import batch_rows, clean_rows
from mdprop.robustness import generation
from mdprop.robustness.embedding import extract_embeddings
from mdprop.robustness.generation import Adversary
from mdprop.training import make_examples, train, training_step, validate
from tests.helpers import make_method, small_embedder, small_store
from tests.parallel.together import Cases, Results, assert_all_close

CASES = Cases()
CPU = torch.device("cpu")
BATCH = 12
LABELS = torch.arange(BATCH // 2).repeat_interleave(2)
TRANSFORM = transforms.test_transform(16, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("training")
    small_store(path / "store.arrow", classes=6, images=5)
    return path


CROSSED = make_method(
    "crossed",
    {"goal": "nearest_other", "share": "1/3", "branch": "a", "through": "clean", "pull": 0.5},
    {"goal": "single_target", "share": "1/3", "branch": "b"},
    {"goal": "gtm", "share": "1/3", "branch": "c", "through": "a", "pull": 2},
)
KNOWN = METHODS | {"crossed": CROSSED}
METHOD_CASES = [
    (method, loss, options)
    for method in ("standard", "at", "mdprop", "mdprop_unadv")
    for loss, options in (
        ("multi_similarity", {}),
        ("arcface", {}),
        ("s2sd", {"target_dims": [8, 16], "feature_delay": 1}),
    )
] + [("crossed", "multi_similarity", {})]
ATTACK = AttackSettings(
    targets=3,
    epsilon=0.05,
    steps=2,
    start_noise=0.01,
    compatibility="mdprop",
    units="pixel",
    clip=None,
    target_kind=None,
    batchnorm_start=None,
    shared_forward=False,
)
AUTHORS: dict[str, Any] = {"compatibility": "authors", "steps": 1, "start_noise": 0.03}
ATTACKS = {"ours": ATTACK, "authors": ATTACK.model_copy(update=AUTHORS)}


def batch(step: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.rand(BATCH, 1, 16, 16, generator=generator, dtype=torch.float64)


def steps(method_name: str, loss_name: str, options: dict[str, Any], dtype: torch.dtype) -> Any:
    """Three steps of gradient descent: losses, the first gradients, and the state at the end."""
    method = KNOWN[method_name]
    model = small_embedder(method.branches).to(dtype).train()
    synchronize_batchnorm(model)
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"embedding_dim": 6, "num_classes": BATCH // 2, "feature_dim": model.feature_dim}
    loss = build_loss(loss_name, options, **sizes).to(dtype)
    parameters = [*model.parameters(), *loss.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    rows, draws = clean_rows(method, BATCH), torch.Generator().manual_seed(3)
    attack = ATTACK if method.adversarial else None
    losses: list[Tensor] = []
    first: list[Tensor | None] = []
    for step in range(3):
        images = batch(step).to(dtype)[rows]
        value = training_step(model, loss, method, images, LABELS[rows], attack, draws)
        optimizer.zero_grad()
        value.backward()
        share_gradients(model.parameters(), loss.parameters())
        first = first or [None if p.grad is None else p.grad.clone() for p in parameters]
        optimizer.step()
        losses.append(value.detach())
    return losses, first, [*model.state_dict().values(), *loss.state_dict().values()]


@CASES.case("steps")
def all_steps(folder: Path) -> Any:
    return {
        (method, loss): steps(method, loss, options, torch.float64) for method, loss, options in METHOD_CASES
    }


@pytest.mark.parametrize(("method", "loss"), [(method, loss) for method, loss, _ in METHOD_CASES])
def test_losses_gradients_and_weights_are_those_of_one_process(
    both: list[Results], alone: Results, method: str, loss: str
) -> None:
    for results in both:
        for found, expected in zip(results["steps"][method, loss], alone["steps"][method, loss], strict=True):
            assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert_close(both[0]["steps"][method, loss], both[1]["steps"][method, loss], rtol=0, atol=0)


@CASES.case("float32")
def single_precision(folder: Path) -> Any:
    return steps("standard", "multi_similarity", {}, torch.float32)


def test_in_single_precision(both: list[Results], alone: Results) -> None:
    assert_all_close(both, alone, "float32", rtol=1e-4, atol=1e-5)


@CASES.case("attacks")
def attacked(folder: Path) -> Any:
    found = {}
    for name, attack in ATTACKS.items():
        for method in (KNOWN[known] for known in ("at", "mdprop", "mdprop_unadv", "crossed")):
            model = small_embedder(method.branches).double().eval()
            own = clean_rows(method, BATCH)
            rows, draws = batch_rows(method, len(own)), torch.Generator().manual_seed(3)
            images = batch()[own]
            found[name, method.name] = make_examples(model, images, LABELS[own], rows, attack, draws)
    return found


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("at", ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11])),
        ("mdprop", ([0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11])),
        ("mdprop_unadv", ([0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11])),
        ("crossed", ([0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11])),
    ],
)
def test_adversarial_images_are_those_of_one_process(
    both: list[Results],
    alone: Results,
    attack: str,
    method: str,
    own: tuple[list[int], list[int]],
) -> None:
    images, labels = alone["attacks"][attack, method]
    assert (images - batch()).abs().max() > 0.04
    for results, rows in zip(both, own, strict=True):
        assert_close(results["attacks"][attack, method], (images[rows], labels[rows]), rtol=0, atol=1e-12)


@CASES.case("loop")
def loop(folder: Path) -> Any:
    method, store = METHODS["mdprop"], ImageStore(folder / "store.arrow")
    sampler = ClassBalancedSampler(store.labels, 8, 2, seed=0, places=clean_rows(method, 8))
    loader = train_loader(TrainImages(store, transforms.train_transform(16, (0.8, 1.0), False)), sampler, 0)
    model = small_embedder(method.branches).double()
    values: list[float] = []
    settings = TrainSettings(
        epochs=2,
        head_epochs=0,
        batch_size=8,
        images_per_class=2,
        class_replacement=False,
        learning_rate=1e-3,
        learning_rates=LearningRates(head=None, clean_batchnorm=None, auxiliary_batchnorm=None, loss=None),
        weight_decay=1e-4,
        schedule="one_cycle",
        precision="float32",
        validate_every=0,
    )
    train(
        model,
        build_loss("multi_similarity", {}, embedding_dim=6, num_classes=6, feature_dim=4),
        method,
        loader,
        settings,
        ATTACK,
        seed=0,
        after_epoch=lambda epoch, found: values.append(found["loss"]) or found,
    )
    return values, list(model.state_dict().values()), validate(model, store, TRANSFORM, CPU).recall_at_1


def test_a_training_is_that_of_one_process(both: list[Results], alone: Results) -> None:
    assert len(alone["loop"][0]) == 2
    assert 0 < alone["loop"][2] < 1
    assert_all_close(both, alone, "loop", rtol=1e-7, atol=1e-9)


# --- files ---


@CASES.case("files")
def files(folder: Path) -> Any:
    """An adversarial set and its embeddings, of five batches, and the clean embeddings of four."""
    store, model = ImageStore(folder / "store.arrow"), small_embedder().eval()
    threat = Threat(goal="multi_target", epsilon=0.05, steps=2, step_ratio=0.5, targets=2)
    out = folder / f"by {world_size()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "BATCH_SIZE", 3)
        patch.setattr(datasets, "BATCH_SIZE", 8)
        adversary = Adversary(model, store, TRANSFORM, {"set": threat}, queries=14, seed=0)
        write = partial(write_adversarial, out / "set.arrow", settings=threat.model_dump())
        write_in_order(write, adversary.attack("set"))
        from_main(None)  # written
        extract_embeddings(model, read_adversarial(out / "set.arrow", turns()), out / "set.parquet", CPU)
        extract_embeddings(model, store_batches(store, TRANSFORM, turns()), out / "clean.parquet", CPU)


@pytest.mark.parametrize("name", ["set.arrow", "set.outcomes.arrow", "set.parquet", "clean.parquet"])
def test_files_are_those_of_one_process_to_the_byte(
    folder: Path, both: list[Results], alone: Results, name: str
) -> None:
    assert (folder / "by 2" / name).read_bytes() == (folder / "by 1" / name).read_bytes()
    assert len(list((folder / "by 2").iterdir())) == 4
