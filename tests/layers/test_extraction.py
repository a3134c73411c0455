from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.testing import assert_close

from mdprop.layers import (
    MultiBatchNorm2d,
    convert_batchnorm,
    extract_branch,
    multi_batchnorms,
    route,
)
from tests.helpers import randomize_norms
from tests.layers.networks import BRANCHES, assert_same_state, images, small_network

# --- extraction ---


def test_extraction_leaves_the_network_as_it_was() -> None:
    network = convert_batchnorm(small_network(), BRANCHES)
    before = copy.deepcopy(network)
    plain = extract_branch(network, "single_target")
    for tensor in plain.state_dict().values():
        tensor.fill_(7)
    assert_same_state(network, before)
    assert type(extract_branch(MultiBatchNorm2d(3, BRANCHES), "multi_target")) is nn.BatchNorm2d


def test_a_branch_of_a_resnet_loads_into_torchvision() -> None:
    torch.manual_seed(0)
    loaded = torchvision.models.resnet18(num_classes=8).eval()
    network = convert_batchnorm(copy.deepcopy(loaded), BRANCHES)
    randomize_norms(network)
    x = torch.randn(2, 3, 32, 32)
    outputs = []
    for branch in BRANCHES:
        plain = extract_branch(network, branch)
        assert not any("branches" in key for key in plain.state_dict())
        assert not multi_batchnorms(plain)
        loaded.load_state_dict(plain.state_dict(), strict=True)
        with torch.no_grad(), route(network, branch):
            outputs.append(network(x))
            assert torch.equal(loaded(x), outputs[-1])
    assert not torch.allclose(outputs[0], outputs[1])


def test_a_timm_network_converts_routes_and_extracts() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    plain = timm.create_model("test_efficientnet", num_classes=5).eval()
    kinds = [type(m) for m in plain.modules() if isinstance(m, nn.BatchNorm2d)]
    network = convert_batchnorm(copy.deepcopy(plain), BRANCHES)
    assert [type(m.branches["multi_target"]) for m in multi_batchnorms(network)] == kinds
    assert timm.layers.BatchNormAct2d in kinds
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(x), plain(x))
        randomize_norms(network)
        expected = [extract_branch(network, b)(x) for b in BRANCHES]
        with route(network, dict.fromkeys(BRANCHES[:2], 1) | {"multi_target": 2}):
            out = network(x)
        for rows, branch in ((slice(0, 1), 0), (slice(1, 2), 1), (slice(2, 4), 2)):
            assert_close(out[rows], expected[branch][rows], rtol=1e-4, atol=1e-4)
    plain.load_state_dict(extract_branch(network, "multi_target").state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(plain(x), expected[2])


# --- mixtures of two branches ---

NORMS: dict[str, Callable[[], nn.Module]] = {
    "1d": lambda: nn.BatchNorm1d(3),
    "2d": lambda: nn.BatchNorm2d(3),
    "3d": lambda: nn.BatchNorm3d(3),
    "synchronised": lambda: nn.SyncBatchNorm(3),
    "without weights": lambda: nn.BatchNorm2d(3, affine=False),
    "without statistics": lambda: nn.BatchNorm2d(3, track_running_stats=False),
}


def mixed_by_hand(network: nn.Module, first: str, second: str, weight: float) -> dict[str, Tensor]:
    one, other = (extract_branch(network, name).state_dict() for name in (first, second))
    return {
        key: (1 - weight) * value + weight * other[key] if value.is_floating_point() else value
        for key, value in one.items()
    }


@pytest.mark.parametrize("percent", [1, 25, 50, 99])
def test_a_mixture_equals_the_interpolation_by_hand(percent: int) -> None:
    network = randomize_norms(convert_batchnorm(small_network(), BRANCHES))
    with route(network, "clean"):
        network(images(4))
    before = copy.deepcopy(network)
    plain = extract_branch(network, f"clean+{percent}%multi_target")
    assert not multi_batchnorms(plain)
    expected = mixed_by_hand(network, "clean", "multi_target", percent / 100)
    assert list(plain.state_dict()) == list(expected) == list(small_network().state_dict())
    for key, value in plain.state_dict().items():
        assert_close(value, expected[key], rtol=1e-6, atol=0)
    assert plain.last.num_batches_tracked == network.last.branches["clean"].num_batches_tracked == 1
    assert_same_state(network, before)
    assert plain.bn is plain.body[2]


def test_a_mixture_lies_between_its_branches_and_has_two_names() -> None:
    layer = randomize_norms(MultiBatchNorm2d(3, BRANCHES))
    ends = [extract_branch(layer, name).weight for name in ("clean", "multi_target")]
    length = (ends[0] - ends[1]).abs()
    for percent in (1, 30, 99):
        weight = extract_branch(layer, f"clean+{percent}%multi_target").weight
        assert_close((weight - ends[0]).abs(), length * percent / 100)
        assert_close((weight - ends[1]).abs(), length * (1 - percent / 100))
        assert torch.equal(extract_branch(layer, f"multi_target+{100 - percent}%clean").weight, weight)


def test_a_mixture_of_equal_branches_is_either() -> None:
    network = convert_batchnorm(small_network(), BRANCHES)
    assert_same_state(extract_branch(network, "clean+37%multi_target"), extract_branch(network))


@pytest.mark.parametrize("kind", NORMS)
def test_mixtures_of_every_class_of_norm(kind: str) -> None:
    norm = NORMS[kind]().eval()
    layer = randomize_norms(convert_batchnorm(copy.deepcopy(norm), BRANCHES))
    plain = extract_branch(layer, "single_target+10%multi_target")
    assert type(plain) is type(norm)
    assert not plain.training
    expected = mixed_by_hand(layer, "single_target", "multi_target", 0.1)
    assert list(plain.state_dict()) == list(expected)
    for key, value in plain.state_dict().items():
        assert_close(value, expected[key])
    for (name, parameter), other in zip(plain.named_parameters(), norm.parameters(), strict=True):
        assert parameter.requires_grad == other.requires_grad, name


@pytest.mark.parametrize(
    ("branch", "message"),
    [
        ("clean+5%cleen", "no batch-norm branch 'cleen'; there are: clean, single_target, multi_target"),
        ("cleen+5%clean", "no batch-norm branch 'cleen'; there are: clean, single_target, multi_target"),
        ("clean+5%clean", "mixes a batch-norm branch with itself"),
        ("clean+0.5%multi_target", "write a name, like 'clean', or a mixture"),
    ],
)
def test_what_is_no_mixture(branch: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extract_branch(convert_batchnorm(small_network(), BRANCHES), branch)


def test_a_plain_network_has_no_mixture() -> None:
    with pytest.raises(ValueError, match="no batch-norm branch 'multi_target'; there are: clean"):
        extract_branch(small_network(), "clean+5%multi_target")
