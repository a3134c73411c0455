"""The training step on torch's meta device: what a GPU would be asked to do, where there is none.

A meta tensor has no values: to fetch one to the host raises, as it would wait for a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mdprop.losses import build_loss
from mdprop.methods import METHODS, Method
from mdprop.models import build_model
from mdprop.models.embedder import Embedder
from mdprop.training import training_step
from tests.helpers import attack_settings, make_method

META = torch.device("meta")
COPIES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}
TWO_RADII = make_method(
    "two_radii",
    {"goal": "single_target", "share": "1/2", "branch": "near", "epsilon": 0.02},
    {"goal": "untargeted", "share": "1/2", "branch": "far"},
)
CROSSED = make_method(
    "crossed",
    {"goal": "nearest_other", "share": "1/2", "branch": "a", "through": "clean", "pull": 0.5},
    {"goal": "single_target", "share": "1/4", "branch": "b"},
    {"goal": "gtm", "share": "1/4", "branch": "c", "through": "clean"},
)


class OneDevice(TorchDispatchMode):
    """Refuses operations on tensors of several devices, but for copies and for scalars of the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor)]
        devices = {t.device.type for t in tensors if t.dim() or t.device == META}
        assert len(devices) < 2 or func in COPIES, f"{func} mixes {devices}"
        return func(*args, **(kwargs or {}))


class NoGenerator:
    """The meta device draws nothing and has no generator."""

    def manual_seed(self, seed: int) -> None:
        return None


@pytest.fixture(autouse=True)
def meta_generators(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.Generator

    def generator(device: Any = "cpu") -> Any:
        return NoGenerator() if torch.device(device) == META else real(device)

    monkeypatch.setattr(torch, "Generator", generator)


def steps(
    method: Method, model: Embedder, loss: nn.Module, images: Tensor, **changes: Any
) -> Iterator[Tensor]:
    labels = torch.arange(4).repeat_interleave(4)
    attack = attack_settings(**changes) if method.adversarial else None
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()])
    for _ in range(2):
        value = training_step(model, loss, method, images, labels, attack, generator)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        yield value


def network_of(method: Method, backbone: str = "conv4") -> Embedder:
    return build_model(backbone, 8, branches=method.branches, mean=[0.5], std=[0.25])


def run(
    method: Method,
    images: Tensor,
    loss: str = "multi_similarity",
    backbone: str = "conv4",
    **changes: Any,
) -> None:
    model = network_of(method, backbone)
    options = {"target_dims": [16], "feature_delay": 1} if loss == "s2sd" else {}
    criterion = build_loss(loss, options, embedding_dim=8, num_classes=4, feature_dim=model.feature_dim)
    for value in steps(method, model.to(META), criterion.to(META), images, **changes):
        assert value.device == META and value.shape == ()


IMAGES = torch.empty(16, 1, 28, 28, device=META)


@pytest.mark.parametrize("method", [*METHODS.values(), TWO_RADII, CROSSED], ids=lambda method: method.name)
@pytest.mark.parametrize(
    "changes", [{}, {"steps": 3}, {"compatibility": "authors"}, {"shared_forward": True}]
)
def test_no_value_is_fetched_and_no_device_mixed(method: Method, changes: dict[str, Any]) -> None:
    with OneDevice():
        run(method, IMAGES, **changes)


@pytest.mark.parametrize("loss", ["multi_similarity", "arcface", "s2sd"])
def test_losses_stay_on_the_device(loss: str) -> None:
    with OneDevice():
        run(METHODS["mdprop"], IMAGES, loss=loss)


def test_a_residual_network_stays_on_the_device() -> None:
    with OneDevice():
        run(METHODS["mdprop"], torch.empty(16, 3, 64, 64, device=META), backbone="resnet18")


class Fetching(nn.Module):
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return embeddings.sum() * float(embeddings.detach().mean())


class Mixing(nn.Module):
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return (embeddings.sum(1) * torch.ones(len(embeddings))).sum()


@pytest.mark.parametrize("loss", [Fetching(), Mixing()])
def test_what_a_gpu_would_wait_for_is_noticed(loss: nn.Module) -> None:
    model = network_of(METHODS["standard"]).to(META)
    with pytest.raises((RuntimeError, AssertionError)), OneDevice():
        next(steps(METHODS["standard"], model, loss, IMAGES))
