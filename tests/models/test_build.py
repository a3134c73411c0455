from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from mdprop.errors import ModelError
from mdprop.layers import extract_branch, multi_batchnorms, route
from mdprop.models import build_model
from mdprop.models.conv4 import Conv4
from tests.helpers import randomize_norms

BRANCHES = ("clean", "single_target", "multi_target")
GREY = {"mean": [0.5], "std": [0.25]}


@pytest.mark.parametrize("backbone", ["conv4", "resnet18", "timm:test_efficientnet"])
@pytest.mark.parametrize("branches", [("clean",), BRANCHES])
def test_a_network_by_name(backbone: str, branches: tuple[str, ...]) -> None:
    if backbone.startswith("timm:"):
        pytest.importorskip("timm")
    model = build_model(backbone, 7, branches=branches).eval()
    norms = multi_batchnorms(model)
    assert {tuple(norm.branches) for norm in norms} == ({branches} if len(branches) > 1 else set())
    plain = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(plain) == len(norms) * len(branches) or not norms
    for shape in ((2, 3, 32, 32), (1, 3, 40, 33)):
        embeddings = model(torch.rand(shape))
        assert embeddings.shape == (shape[0], 7)
        assert_close(embeddings.norm(dim=1), torch.ones(shape[0]))


def test_the_same_seed_builds_the_same_weights_whatever_the_branches() -> None:
    models = []
    for branches in (("clean",), BRANCHES):
        torch.manual_seed(3)
        models.append(build_model("conv4", 5, branches=branches))
    plain, multi = models[0].network.state_dict(), extract_branch(models[1].network).state_dict()
    assert list(plain) == list(multi)
    assert all(torch.equal(plain[key], multi[key]) for key in plain)


@pytest.mark.parametrize("backbone", ["conv4", "resnet18"])
def test_grey_images(backbone: str) -> None:
    torch.manual_seed(0)
    model = build_model(backbone, 4, **GREY).eval()
    grey = torch.rand(2, 1, 32, 32)
    assert model.in_channels == (1 if backbone == "conv4" else 3)
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    assert first.in_channels == model.in_channels
    normalised = ((grey - 0.5) / 0.25).repeat(1, model.in_channels, 1, 1)
    assert_close(model(grey), F.normalize(model.network(normalised), dim=1))


@pytest.mark.parametrize("channels", [1, 3])
def test_conv4_is_the_textbooks_network(channels: int) -> None:
    def textbook(network: Conv4, x: Tensor) -> Tensor:
        """Convolution, batch norm, ReLU and only then the pooling, four times."""
        for block in network.blocks:
            x = F.max_pool2d(F.relu(block.bn(block.conv(x))), 2)
        return network.fc(x.mean((2, 3)))

    torch.manual_seed(0)
    network = Conv4(6, channels)
    randomize_norms(network)
    for size in (16, 28, 37):
        x = torch.randn(3, channels, size, size)
        assert_close(network.eval()(x), textbook(network, x))
    assert [block.conv.out_channels for block in network.blocks] == [32, 64, 128, 128]
    assert network.blocks(torch.randn(1, channels, 28, 28)).shape == (1, 128, 1, 1)


def test_slices_of_a_batch_go_through_the_branches_of_a_built_network() -> None:
    torch.manual_seed(0)
    model = build_model("conv4", 4, branches=BRANCHES, **GREY)
    randomize_norms(model).eval()
    images = torch.rand(4, 1, 16, 16)
    with route(model, {"clean": 2, "single_target": 1, "multi_target": 1}):
        mixed = model(images)
    for row, branch in enumerate(("clean", "clean", "single_target", "multi_target")):
        assert_close(mixed[[row]], extract_branch(model, branch)(images[[row]]))


@pytest.mark.parametrize("backbone", ["conv5", "resnet19", "ResNet18", "vgg16", "get_model", ""])
def test_an_unknown_backbone_is_one_line_with_the_known_ones(backbone: str) -> None:
    with pytest.raises(
        ModelError,
        match=rf"^model\.backbone: unknown backbone '{backbone}'; "
        r"known: conv4, .*resnet18, .*efficientnet_lite0, timm:<name>$",
    ):
        build_model(backbone, 4)


def test_an_unknown_timm_model() -> None:
    pytest.importorskip("timm")
    with pytest.raises(ModelError, match=r"timm has no model 'resnet_18'; see timm\.list_models\(\)$"):
        build_model("timm:resnet_18", 4)


def test_an_unknown_timm_tag() -> None:
    pytest.importorskip("timm")
    with pytest.raises(
        ModelError, match=r"^model\.backbone 'timm:resnet18\.best': Invalid pretrained tag \(best\)"
    ):
        build_model("timm:resnet18.best", 4)


def test_without_timm_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match=r"^model\.backbone 'timm:resnet18' needs timm: pip install timm$"):
        build_model("timm:resnet18", 4)


def test_a_network_without_batch_norm_cannot_have_branches() -> None:
    pytest.importorskip("timm")
    build_model("timm:test_vit", 4)
    with pytest.raises(
        ModelError,
        match=r"^model\.backbone 'timm:test_vit': the module has no batch norm to convert; "
        r"choose one with batch norm$",
    ):
        build_model("timm:test_vit", 4, branches=BRANCHES)
