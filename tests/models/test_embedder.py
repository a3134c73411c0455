from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from mdprop.errors import ModelError
from mdprop.layers import extract_branch, route
from mdprop.models import Embedder, build_model
from mdprop.models.embedder import Freeze
from tests.helpers import randomize_norms, small_embedder


class Recorder(nn.Module):
    """Keeps its input; returns the mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x.mean((2, 3))


def test_pixels_are_normalised_and_embeddings_have_unit_norm() -> None:
    model = Embedder(Recorder(), [0.2, 0.4, 0.6], [0.1, 0.2, 0.3], 3)
    images = torch.rand(5, 3, 4, 6)
    embeddings = model(images)
    mean, std = torch.tensor([0.2, 0.4, 0.6]), torch.tensor([0.1, 0.2, 0.3])
    expected = (images - mean[:, None, None]) / std[:, None, None]
    assert_close(model.network.seen, expected)
    assert_close(embeddings, F.normalize(expected.mean((2, 3)), dim=1))
    assert_close(embeddings.norm(dim=1), torch.ones(5))


def test_a_grey_image_meets_three_channels_as_three_equal_ones() -> None:
    model = Embedder(Recorder(), [0.5], [0.25], 3)
    images = torch.rand(2, 1, 4, 4)
    model(images)
    assert model.network.seen.shape == (2, 3, 4, 4)
    for channel in range(3):
        assert torch.equal(model.network.seen[:, [channel]], (images - 0.5) / 0.25)


def test_gradients_reach_the_pixels() -> None:
    model = small_embedder()
    images = torch.rand(2, 1, 16, 16, requires_grad=True)
    model.eval()(images)[:, 0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_the_state_is_the_networks_alone() -> None:
    model = small_embedder()
    assert all(key.startswith("network.") for key in model.state_dict())
    assert [key.removeprefix("network.") for key in model.state_dict()] == list(model.network.state_dict())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_mean_and_std_move_with_the_model(dtype: torch.dtype) -> None:
    model = small_embedder().to(dtype)
    assert (model.mean.dtype, model.std.dtype) == (dtype, dtype)
    assert model.eval()(torch.rand(2, 1, 16, 16, dtype=dtype)).dtype == dtype


# --- features ---


def resnet_features(network: nn.Module, x: Tensor) -> Tensor:
    """The last feature map of a torchvision or timm ResNet, layer by layer."""
    stem = ("conv1", "bn1", "relu" if hasattr(network, "relu") else "act1", "maxpool")
    for name in (*stem, "layer1", "layer2", "layer3", "layer4"):
        x = network.get_submodule(name)(x)
    return x


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("conv4", lambda network, x: network.blocks(x)),
        ("resnet18", resnet_features),
        ("timm:resnet18", resnet_features),
        ("timm:test_efficientnet", lambda network, x: network.forward_features(x)),
        ("timm:test_byobnet", lambda network, x: network.forward_features(x)),
        ("efficientnet_lite0", lambda network, x: network.extract_features(x)),
    ],
)
def test_features_are_the_last_map(backbone: str, expected: Callable[[Any, Tensor], Tensor]) -> None:
    if backbone.startswith("timm:"):
        pytest.importorskip("timm")
    if backbone == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    torch.manual_seed(0)
    model = build_model(backbone, 5, branches=("clean", "single_target"))
    randomize_norms(model).eval()
    images = torch.rand(3, 3, 48, 48)
    with torch.no_grad():
        for branch in ("clean", "single_target"):
            plain = extract_branch(model, branch)
            with route(model, branch):
                embeddings, features = model.forward_with_features(images)
                assert torch.equal(embeddings, model(images))
            reference = expected(plain.network, (images - model.mean) / model.std)
            assert_close(features, reference)
            assert features.shape[:2] == (3, model.feature_dim)
            assert_close(plain.forward_with_features(images), (embeddings, features))
        with route(model, {"clean": 1, "single_target": 2}):
            mixed = model.forward_with_features(images)[1]
        assert_close(mixed[1:], features[1:], rtol=1e-4, atol=1e-4)
        assert not torch.allclose(mixed[:1], features[:1])


def test_features_take_one_pass_and_leave_no_hook() -> None:
    model = small_embedder()
    calls = []
    model.network.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(2):
        model.eval().forward_with_features(torch.rand(2, 1, 16, 16))
    assert len(calls) == 2
    assert not any(m._forward_pre_hooks for m in model.modules())
    with pytest.raises(RuntimeError, match="must match the existing size"):
        model.forward_with_features(torch.rand(2, 5, 16, 16))
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_gradients_flow_through_embeddings_and_features() -> None:
    model = small_embedder(dim=3).train()
    for part in (0, 1):
        model.zero_grad()
        images = torch.rand(2, 1, 32, 32, requires_grad=True)
        model.forward_with_features(images)[part].flatten(1)[:, 0].sum().backward()
        assert images.grad is not None
        assert images.grad.abs().sum() > 0
        head, first = model.network.get_submodule("fc"), next(model.network.parameters())
        assert first.grad is not None
        assert (head.weight.grad is None) == (part == 1)


class Tokens(nn.Module):
    """Pools vectors instead of a map, `times` over."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.avgpool, self.fc, self.times = nn.Flatten(), nn.Linear(3, 4), times

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.times == 2 else x.mean((2, 3))
        for _ in range(self.times):
            pooled = self.avgpool(x)
        return self.fc(pooled.view(len(x), 3, -1).mean(2))


@pytest.mark.parametrize("network", [Recorder(), Tokens(1), Tokens(2)], ids=["none", "no map", "twice"])
def test_a_network_without_one_pooled_map_has_no_features(network: nn.Module) -> None:
    model = Embedder(network, [0.5] * 3, [0.25] * 3, 3)
    name = type(network).__name__
    with pytest.raises(
        ModelError,
        match=rf"^model\.backbone: a {name} does not pool one feature map \[B, F, H, W\]; choose conv4, ",
    ):
        model.forward_with_features(torch.rand(1, 3, 8, 8))


def test_a_vision_transformer_trains_without_features() -> None:
    pytest.importorskip("timm")
    model = build_model("timm:test_vit", 4).eval()
    images = torch.rand(1, 3, 160, 160)
    assert (model.feature_dim, model(images).shape) == (64, (1, 4))
    with pytest.raises(ModelError, match=r"a VisionTransformer does not pool one feature map"):
        model.forward_with_features(images)


# --- frozen batch norm ---


@pytest.mark.parametrize("freeze", ["none", "clean", "statistics", "all"])
@pytest.mark.parametrize("branches", [("clean",), ("clean", "single_target")])
def test_frozen_statistics(freeze: Freeze, branches: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    model = build_model("conv4", 4, branches=branches, freeze_batchnorm=freeze)
    randomize_norms(model).eval()
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    optimiser = torch.optim.SGD(model.parameters(), 0.1)
    with route(model, {name: 4 for name in branches}):
        model(torch.rand(4 * len(branches), 3, 16, 16))[:, 0].sum().backward()
    optimiser.step()
    moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}

    def norm_moves(branch: str, key: str) -> bool:
        where = f".branches.{branch}." if len(branches) > 1 else ".bn."
        return any(where in name and name.endswith(key) for name in moved)

    for branch in branches:
        frozen = freeze in ("statistics", "all") or (freeze == "clean" and branch == "clean")
        assert norm_moves(branch, "running_mean") != frozen
        assert norm_moves(branch, "running_var") != frozen
        assert norm_moves(branch, ".weight") == (freeze != "all")
        assert norm_moves(branch, ".bias") == (freeze != "all")
    assert {"network.fc.weight", "network.blocks.0.conv.weight"} <= moved


@pytest.mark.parametrize("freeze", ["clean", "statistics", "all"])
def test_a_frozen_network_is_in_train_mode_what_it_is_in_eval_mode(freeze: Freeze) -> None:
    model = build_model("resnet18", 4, freeze_batchnorm=freeze, branches=("clean", "single_target"))
    randomize_norms(model)
    images = torch.rand(2, 3, 32, 32)
    for built in (model, extract_branch(model)):
        training = built.train()(images)
        assert built.training
        assert torch.equal(training, built.eval()(images))
    unfrozen = build_model("resnet18", 4, branches=("clean", "single_target"))
    unfrozen.load_state_dict(model.state_dict())
    assert not torch.allclose(unfrozen.train()(images), training)


def test_frozen_from_the_start_and_after_the_model_was_in_eval_mode() -> None:
    model = build_model("conv4", 4, freeze_batchnorm="all")
    for _ in range(2):
        assert model.training
        assert not any(m.training for m in model.modules() if isinstance(m, nn.BatchNorm2d))
        model.eval().train()


@pytest.mark.parametrize("freeze", ["statistics", "all"])
def test_every_branch_in_train_mode_is_what_it_is_in_eval_mode(freeze: Freeze) -> None:
    branches = ("clean", "single_target")
    model = build_model("resnet18", 4, freeze_batchnorm=freeze, branches=branches)
    randomize_norms(model)
    images = torch.rand(4, 3, 32, 32)
    with route(model, dict.fromkeys(branches, 2)):
        assert torch.equal(model.train()(images), model.eval()(images))


def test_the_momentum_of_auxiliary_branches() -> None:
    branches = ("clean", "single_target", "multi_target")
    model = build_model("conv4", 4, branches=branches, auxiliary_momentum=0.5).train()
    as_built = build_model("conv4", 4, branches=branches).train()
    as_built.load_state_dict(model.state_dict())
    images = torch.rand(12, 3, 16, 16)
    for built in (model, as_built):
        with route(built, dict.fromkeys(branches, 4)):
            built(images)
    moved, usual = (built.network.blocks[0].bn.branches for built in (model, as_built))
    assert torch.equal(moved.clean.running_mean, usual.clean.running_mean)
    for name in branches[1:]:
        torch.testing.assert_close(moved[name].running_mean, 5 * usual[name].running_mean)


@pytest.mark.parametrize("freeze", ["none", "clean", "statistics", "all"])
def test_only_the_head_learns_for_a_while(freeze: Freeze) -> None:
    torch.manual_seed(0)
    branches = ("clean", "single_target")
    model = build_model("conv4", 4, branches=branches, freeze_batchnorm=freeze)
    learning = [name for name, value in model.named_parameters() if value.requires_grad]
    optimiser = torch.optim.Adam(model.parameters(), 0.1, weight_decay=0.1)

    def moved_by_a_step() -> set[str]:
        before = {key: value.clone() for key, value in model.state_dict().items()}
        model.eval().train()  # as around an attack
        with route(model, dict.fromkeys(branches, 4)):
            model(torch.rand(8, 3, 16, 16))[:, 0].sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        return {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}

    head = {"network.fc.weight", "network.fc.bias"}
    with model.only_head():
        assert moved_by_a_step() == head
    assert [name for name, value in model.named_parameters() if value.requires_grad] == learning
    moved = moved_by_a_step()
    assert head | {"network.blocks.0.conv.weight"} <= moved
    kept = {"none": set(), "clean": {"clean"}, "statistics": set(branches), "all": set(branches)}[freeze]
    for branch in branches:
        assert (f"network.blocks.0.bn.branches.{branch}.running_mean" in moved) == (branch not in kept)


def test_an_unknown_way_to_freeze() -> None:
    with pytest.raises(
        ModelError, match=r"^model\.freeze_batchnorm: unknown 'yes'; known: none, clean, statistics, all$"
    ):
        build_model("conv4", 4, freeze_batchnorm="yes")
