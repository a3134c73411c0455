"""A small training that can be killed before any step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdprop.config.schema import TrainSettings
from mdprop.data.loading.datasets import TrainImages, train_loader
from mdprop.data.loading.samplers import ClassBalancedSampler
from mdprop.data.loading.transforms import train_transform
from mdprop.data.stores.images import ImageStore
from mdprop.losses import MultiSimilarityLoss, build_loss
from mdprop.methods import METHODS
from mdprop.models import build_model, place
from mdprop.parallel.resume import kept
from mdprop.parallel.rows import clean_rows
from mdprop.training import loop, train
from mdprop.training.state import Keeper
from tests.helpers import attack_settings, train_settings

STEPS = 3  # of an epoch
EPOCHS = 3
Curves = list[tuple[int, Mapping[str, float]]]


class Dropping(MultiSimilarityLoss):
    """A loss that draws from the global generator, as dropout in a backbone does."""

    def forward(self, embeddings: Tensor, labels: Tensor, mined: Any = None) -> Tensor:
        return super().forward(F.dropout(embeddings, 0.3), labels)


def loss_of(name: str, miner: str | None = None, **options: Any) -> Callable[[int], nn.Module]:
    def build(feature_dim: int) -> nn.Module:
        sizes: dict[str, Any] = {"embedding_dim": 6, "num_classes": 14, "feature_dim": feature_dim}
        return build_loss(name, options, miner=miner, **sizes)

    return build


CASES: dict[str, tuple[str, Callable[[int], nn.Module], dict[str, Any]]] = {
    "plain": ("standard", loss_of("multi_similarity"), {}),
    "one cycle": ("mdprop", loss_of("arcface"), {"schedule": "one_cycle"}),
    "replacement": (
        "mdprop_unadv",
        loss_of("soft_triple"),
        {"class_replacement": True, "schedule": "one_cycle"},
    ),
    "counting": ("mdprop", loss_of("s2sd", target_dims=[8, 16], feature_delay=4), {}),
    "drawing": ("advprop", lambda _: Dropping(), {"schedule": "one_cycle"}),
    "mining": ("standard", loss_of("triplet_margin", "distance_weighted"), {}),
    "head first": ("mdprop", loss_of("arcface"), {"schedule": "one_cycle", "head_epochs": 2}),
    "learning betas": ("standard", loss_of("margin", learn_beta=True), {"learning_rates": {"loss": 0.1}}),
}


class Killed(BaseException):
    """What a step raises that a kill cuts short."""


def begun(
    store: ImageStore,
    case: str = "plain",
    stop: int | None = None,
    curves: Curves | None = None,
    workers: int = 0,
    identity: Mapping[str, Any] | None = None,
    settings: TrainSettings | None = None,
) -> dict[str, Tensor]:
    """A training, killed before its step `stop`, counted from where it begins; else what it ends in."""
    method, loss_for, options = CASES[case]
    settings = settings or train_settings(epochs=EPOCHS, **options)
    rows = clean_rows(METHODS[method], 8)
    sampler = ClassBalancedSampler(store.labels, 8, 2, 0, settings.class_replacement, rows)
    loader = train_loader(TrainImages(store, train_transform(16, (0.5, 1.0), True)), sampler, workers)
    torch.manual_seed(0)
    model = build_model("conv4", 6, branches=METHODS[method].branches, mean=[0.5], std=[0.25])
    place(model, "cpu")
    loss = loss_for(model.feature_dim)
    attack = attack_settings(targets=2) if METHODS[method].adversarial else None
    shown: Curves = [] if curves is None else curves
    shown.clear()
    steps = 0

    def step(*arguments: Any) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == stop:
            raise Killed
        return real(*arguments)

    real = loop.training_step
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(loop, "training_step", step)
        state = stack.enter_context(kept(f"train-{case.replace(' ', '-')}", identity or {"of": "a test"}))
        keeper = Keeper(state, lambda epoch, values: shown.append((epoch, dict(values))), "cpu", "training")
        train(model, loss, METHODS[method], loader, settings, attack, 0, keeper=keeper)
    return {**model.state_dict(), **{f"loss {key}": value for key, value in loss.state_dict().items()}}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [key for key, value in found.items() if not torch.equal(value, expected[key])] == []
