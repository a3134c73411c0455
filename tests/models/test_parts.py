from __future__ import annotations

import pytest
import torch
from torch import nn

from mdprop.layers import multi_batchnorms
from mdprop.models import Embedder, build_model, parameter_groups
from mdprop.models.parts import frozen
from tests.helpers import small_embedder

BRANCHES = ("clean", "single_target", "multi_target")
HEADS = {
    "conv4": "fc",
    "resnet18": "fc",
    "efficientnet_lite0": "_fc",
    "timm:test_efficientnet": "classifier",
    "timm:test_byobnet": "head.fc",
}


def build(backbone: str, branches: tuple[str, ...] = BRANCHES) -> Embedder:
    if backbone.startswith("timm:"):
        pytest.importorskip("timm")
    if backbone == "efficientnet_lite0":
        pytest.importorskip("efficientnet_lite_pytorch")
    return build_model(backbone, 6, branches=branches)


@pytest.mark.parametrize("branches", [("clean",), ("clean", "single_target"), BRANCHES])
@pytest.mark.parametrize("backbone", HEADS)
def test_each_parameter_is_in_one_group(backbone: str, branches: tuple[str, ...]) -> None:
    model = build(backbone, branches)
    groups = parameter_groups(model)
    assert list(groups) == ["backbone", "head", "clean_batchnorm", "auxiliary_batchnorm"]
    members = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(members) == sorted(id(parameter) for parameter in model.parameters())

    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {group: [names[id(p)] for p in parameters] for group, parameters in groups.items()}
    head = f"network.{HEADS[backbone]}."
    assert found["head"] == [f"{head}weight", f"{head}bias"]
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(found["clean_batchnorm"]) == 2 * len(layers) // len(branches)
    assert len(found["auxiliary_batchnorm"]) == 2 * len(layers) // len(branches) * (len(branches) - 1)
    if len(branches) > 1:
        assert all(".branches.clean." in name for name in found["clean_batchnorm"])
        assert all(".branches." in name and ".clean." not in name for name in found["auxiliary_batchnorm"])
    assert not any(".branches." in name for name in found["backbone"])


def test_the_order_is_the_models() -> None:
    groups = parameter_groups(build_model("resnet18", 4, branches=BRANCHES))
    order = list(build_model("resnet18", 4).network.parameters())
    plain = [p.shape for p in order if p.dim() == 4]
    assert [p.shape for p in groups["backbone"]] == plain


def test_without_a_clean_branch_the_first_one_is_what_images_meet() -> None:
    model = build_model("conv4", 4, branches=("a", "b"))
    groups = parameter_groups(model)
    layers = multi_batchnorms(model)
    assert [id(p) for p in groups["clean_batchnorm"]] == [
        id(p) for layer in layers for p in layer.branches["a"].parameters()
    ]
    assert len(groups["auxiliary_batchnorm"]) == 2 * len(layers)


def test_groups_are_what_an_optimiser_moves() -> None:
    torch.manual_seed(0)
    model = build_model("conv4", 4, branches=("clean", "single_target")).train()
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimiser = torch.optim.SGD([{"params": parameter_groups(model)["head"], "lr": 0.1}])
    model(torch.rand(4, 3, 16, 16))[:, 0].sum().backward()
    optimiser.step()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {"network.fc.weight", "network.fc.bias"}


def test_frozen_weights_learn_again_afterwards() -> None:
    model = small_embedder(("clean", "single_target"))
    model.network.fc.bias.requires_grad_(False)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    with pytest.raises(RuntimeError, match="stop"), frozen(model):
        assert not any(p.requires_grad for p in model.parameters())
        raise RuntimeError("stop")
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    assert not all(before.values())
