from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mdprop.layers import (
    MultiBatchNorm1d,
    MultiBatchNorm2d,
    MultiBatchNorm3d,
    convert_batchnorm,
    extract_branch,
    multi_batchnorms,
    route,
)
from tests.helpers import randomize_norms
from tests.layers.networks import BRANCHES, assert_same_state, images, small_network

RANKS: dict[int, tuple[type[nn.Module], type[nn.Module], tuple[int, ...]]] = {
    1: (nn.BatchNorm1d, MultiBatchNorm1d, (3, 5)),
    2: (nn.BatchNorm2d, MultiBatchNorm2d, (3, 4, 5)),
    3: (nn.BatchNorm3d, MultiBatchNorm3d, (3, 2, 3, 4)),
}


# --- conversion ---


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("branch", BRANCHES)
def test_a_converted_network_equals_the_plain_one(training: bool, branch: str) -> None:
    plain = small_network().train(training)
    converted = convert_batchnorm(copy.deepcopy(plain), BRANCHES)
    x = images(5)
    with route(converted, branch):
        assert torch.equal(converted(x), plain(x))
        assert torch.equal(converted(x), plain(x))  # after the first has moved the statistics
    assert_same_state(extract_branch(converted, branch), plain)


def test_each_branch_starts_as_a_full_copy() -> None:
    norm = nn.BatchNorm2d(4, eps=1e-3, momentum=0.3)
    norm(torch.randn(8, 4, 3, 3))
    norm.weight.data.uniform_()
    norm.bias.requires_grad_(False)
    norm.eval()
    layer = convert_batchnorm(norm, BRANCHES)
    assert isinstance(layer, MultiBatchNorm2d)
    assert layer.training is False
    assert convert_batchnorm(nn.BatchNorm2d(4), BRANCHES).training is True
    memory = set()
    for branch in layer.branches.values():
        assert_same_state(branch, norm)
        assert (branch.eps, branch.momentum, branch.training) == (1e-3, 0.3, False)
        assert branch.num_batches_tracked == 1
        assert (branch.weight.requires_grad, branch.bias.requires_grad) == (True, False)
        memory |= {tensor.data_ptr() for tensor in branch.state_dict().values()}
    assert len(memory) == len(BRANCHES) * len(norm.state_dict())


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
def test_layers_without_weights_or_statistics(affine: bool, track: bool) -> None:
    norm = nn.BatchNorm2d(3, affine=affine, track_running_stats=track)
    layer = convert_batchnorm(copy.deepcopy(norm), BRANCHES)
    x = images(4)
    assert torch.equal(layer(x), norm(x))
    assert torch.equal(layer.eval()(x), norm.eval()(x))
    built = MultiBatchNorm2d(3, BRANCHES, affine=affine, track_running_stats=track)
    assert list(built.state_dict()) == list(layer.state_dict())


@pytest.mark.parametrize("rank", RANKS)
def test_every_rank(rank: int) -> None:
    plain_class, multi_class, shape = RANKS[rank]
    assert isinstance(convert_batchnorm(plain_class(3), BRANCHES), multi_class)
    layer = multi_class(3, BRANCHES)
    assert all(type(branch) is plain_class for branch in layer.branches.values())
    randomize_norms(layer)
    copies = {name: copy.deepcopy(branch) for name, branch in layer.branches.items()}
    x = torch.randn(7, *shape)
    with route(layer, {"clean": 3, "multi_target": 4}):
        out = layer(x)
    assert_close(out, torch.cat([copies["clean"](x[:3]), copies["multi_target"](x[3:])]), rtol=0, atol=0)


def test_flat_inputs_of_batch_norm_1d() -> None:
    layer = MultiBatchNorm1d(5, ("clean", "other"))
    x = torch.randn(8, 5)
    with route(layer, {"clean": 4, "other": 4}):
        out = layer(x)
    assert_close(out[4:], nn.BatchNorm1d(5)(x[4:]))


def test_a_layer_in_two_places_stays_shared() -> None:
    network = convert_batchnorm(small_network(), BRANCHES)
    assert network.bn is network.body[2]
    assert len(multi_batchnorms(network)) == 2
    plain = extract_branch(network)
    assert plain.bn is plain.body[2]
    assert type(plain.bn) is nn.BatchNorm2d


def test_synchronised_batch_norm_keeps_its_class() -> None:
    plain = nn.SyncBatchNorm.convert_sync_batchnorm(small_network()).eval()
    converted = convert_batchnorm(copy.deepcopy(plain), BRANCHES)
    assert all(type(b) is nn.SyncBatchNorm for m in multi_batchnorms(converted) for b in m.branches.values())
    with route(converted, "multi_target"):
        assert torch.equal(converted(images(3)), plain(images(3)))


def test_other_norms_are_left_alone() -> None:
    network = nn.Sequential(nn.InstanceNorm2d(3), nn.GroupNorm(1, 3), nn.BatchNorm2d(3))
    convert_batchnorm(network, BRANCHES)
    assert [type(m) for m in network] == [nn.InstanceNorm2d, nn.GroupNorm, MultiBatchNorm2d]


def test_a_converted_module_keeps_its_device_and_type() -> None:
    network = convert_batchnorm(small_network().double(), BRANCHES)
    assert all(
        b.weight.dtype == torch.float64 for m in multi_batchnorms(network) for b in m.branches.values()
    )


def test_what_cannot_be_converted() -> None:
    with pytest.raises(ValueError, match="no batch norm to convert"):
        convert_batchnorm(nn.Linear(2, 2), BRANCHES)
    network = convert_batchnorm(small_network(), BRANCHES)
    with pytest.raises(ValueError, match="batch-norm branches already"):
        convert_batchnorm(network, BRANCHES)


@pytest.mark.parametrize("names", [(), ("clean", "clean")])
def test_branches_need_different_names(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="one or more different names"):
        MultiBatchNorm2d(3, names)
    with pytest.raises(ValueError, match="one or more different names"):
        convert_batchnorm(nn.BatchNorm2d(3), names)


# --- copies and files ---


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_and_separate(duplicate: Callable[[nn.Module], nn.Module]) -> None:
    network = randomize_norms(convert_batchnorm(small_network(), BRANCHES)).eval()
    twin = duplicate(network)
    assert_same_state(twin, network)
    before = network(images(3))
    with route(twin, "multi_target"):
        twin.train()(images(3))
        assert torch.equal(network(images(3)), before)


def test_the_state_dict_round_trip() -> None:
    network = randomize_norms(convert_batchnorm(small_network(), BRANCHES)).eval()
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = convert_batchnorm(small_network(seed=5), BRANCHES).eval()
    other.load_state_dict(torch.load(file, weights_only=True))
    for branch in BRANCHES:
        with route(network, branch), route(other, branch):
            assert torch.equal(other(images(3)), network(images(3)))
