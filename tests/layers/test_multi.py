from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.testing import assert_close

from mdprop.layers import (
    MultiBatchNorm2d,
    convert_batchnorm,
    extract_branch,
    reset_statistics,
    route,
)
from tests.helpers import golden, randomize_norms
from tests.layers.networks import BRANCHES, assert_same_state, images, small_network, statistics

# --- the authors' numbers ---


@pytest.fixture
def authors() -> tuple[MultiBatchNorm2d, dict[str, Tensor]]:
    """A layer in the authors' state before the step, and their arrays."""
    arrays = {key: torch.from_numpy(value) for key, value in golden("multi_batchnorm").items()}
    layer = MultiBatchNorm2d(6, BRANCHES)
    for branch, prefix in zip(BRANCHES, ("", "aux_bn1__", "aux_bn2__"), strict=True):
        state = {key: arrays[f"before__{prefix}{key}"] for key in layer.branches[branch].state_dict()}
        layer.branches[branch].load_state_dict(state)
    return layer, arrays


def test_training_equals_the_authors(authors: tuple[MultiBatchNorm2d, dict[str, Tensor]]) -> None:
    layer, arrays = authors
    x = arrays["x"].requires_grad_(True)
    with route(layer, {"clean": 8, "single_target": 4, "multi_target": 4}):
        out = layer(x)
    (gradient,) = torch.autograd.grad((out * arrays["weight"]).sum(), x)
    assert_close(out, arrays["train_out"], rtol=1e-5, atol=1e-6)
    assert_close(gradient, arrays["grad_x"], rtol=1e-5, atol=1e-5 * float(arrays["grad_x"].abs().max()))
    for branch, prefix in zip(BRANCHES, ("", "aux_bn1__", "aux_bn2__"), strict=True):
        for key, value in layer.branches[branch].state_dict().items():
            assert_close(value, arrays[f"after__{prefix}{key}"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("branch", "name"),
    [("clean", "eval_clean"), ("single_target", "eval_adv1"), ("multi_target", "eval_adv2")],
)
def test_evaluation_equals_the_authors(
    authors: tuple[MultiBatchNorm2d, dict[str, Tensor]], branch: str, name: str
) -> None:
    layer, arrays = authors
    with route(layer, {"clean": 8, "single_target": 4, "multi_target": 4}):
        layer(arrays["x"])
    layer.eval()
    with route(layer, branch):
        assert_close(layer(arrays["x"]), arrays[name], rtol=1e-5, atol=1e-6)


# --- routes ---


@given(st.lists(st.integers(0, 4), min_size=3, max_size=3).filter(any), st.permutations(BRANCHES))
@settings(max_examples=30)
def test_slices_go_through_their_branches_and_no_others(sizes: list[int], order: list[str]) -> None:
    layer = randomize_norms(MultiBatchNorm2d(3, BRANCHES))
    copies = {name: copy.deepcopy(branch) for name, branch in layer.branches.items()}
    x = images(sum(sizes))
    with route(layer, dict(zip(order, sizes, strict=True))):
        out = layer(x)
    parts = torch.split(x, sizes)
    used = [copies[name](part) for name, part in zip(order, parts, strict=True) if len(part)]
    assert torch.equal(out, torch.cat(used))
    for name, size in zip(order, sizes, strict=True):
        assert layer.branches[name].num_batches_tracked == (size > 0)
        assert_same_state(layer.branches[name], copies[name])


@pytest.mark.parametrize("branch", BRANCHES)
def test_statistics_of_unused_branches_do_not_move(branch: str) -> None:
    network = convert_batchnorm(small_network(), BRANCHES)
    before = {name: statistics(extract_branch(network, name)) for name in BRANCHES}
    with route(network, branch):
        network(images(6))
    for name in BRANCHES:
        after = statistics(extract_branch(network, name))
        moved = {key for key in after if not torch.equal(after[key], before[name][key])}
        norms = ("bn.", "body.2.", "last.")
        keys = ("running_mean", "running_var", "num_batches_tracked")
        assert moved == ({n + k for n in norms for k in keys} if name == branch else set())


def test_evaluation_moves_no_statistics() -> None:
    network = convert_batchnorm(small_network(), BRANCHES).eval()
    before = copy.deepcopy(network)
    with route(network, {"clean": 2, "multi_target": 2}):
        network(images(4))
    assert_same_state(network, before)


def test_without_a_route_everything_is_clean() -> None:
    layer = randomize_norms(MultiBatchNorm2d(3, ("other", "clean"))).eval()
    assert torch.equal(layer(images(2)), layer.branches["clean"](images(2)))
    layer = randomize_norms(MultiBatchNorm2d(3, ("first", "second"))).eval()
    assert torch.equal(layer(images(2)), layer.branches["first"](images(2)))


def test_the_branches_are_a_module_dict_of_plain_layers() -> None:
    layer = MultiBatchNorm2d(3)
    assert isinstance(layer.branches, nn.ModuleDict)
    assert tuple(layer.branches) == BRANCHES
    assert all(type(branch) is nn.BatchNorm2d for branch in layer.branches.values())


def test_routes_nest_and_are_restored() -> None:
    network = randomize_norms(convert_batchnorm(small_network(), BRANCHES)).eval()
    x = images(4)

    def through(branch: str) -> Tensor:
        return extract_branch(network, branch)(x)

    mixed = torch.cat([through("single_target")[:3], through("multi_target")[3:]])
    with route(network, {"single_target": 3, "multi_target": 1}):
        assert_close(network(x), mixed)
        with route(network, "multi_target"):
            assert torch.equal(network(x), through("multi_target"))
        assert_close(network(x), mixed)
    assert torch.equal(network(x), through("clean"))


def test_routes_are_restored_after_an_error() -> None:
    network = randomize_norms(convert_batchnorm(small_network(), BRANCHES)).eval()
    expected = extract_branch(network, "single_target")(images(2))
    assert not torch.allclose(network(images(2)), expected)
    with route(network, "single_target"):
        with pytest.raises(RuntimeError, match="stop"), route(network, "multi_target"):
            raise RuntimeError("stop")
        with pytest.raises(ValueError, match="add up"), route(network, {"clean": 1}):
            network(images(2))
        with pytest.raises(ValueError, match="no batch-norm branch"), route(network, "none"):
            pass
        assert torch.equal(network(images(2)), expected)


@pytest.mark.parametrize("routes", [{"clean": 3}, {"clean": 3, "multi_target": 3}, {"clean": 0}])
def test_routes_must_add_up_to_the_batch(routes: dict[str, int]) -> None:
    network = convert_batchnorm(small_network(), BRANCHES)
    with (
        pytest.raises(ValueError, match=r"routes \{.*\} do not add up to the batch of 5"),
        route(network, routes),
    ):
        network(images(5))


@pytest.mark.parametrize("routes", ["cleen", {"clean": 2, "cleen": 3}])
def test_an_unknown_branch(routes: str | dict[str, int]) -> None:
    message = "^no batch-norm branch 'cleen'; there are: clean, single_target, multi_target$"
    network = convert_batchnorm(small_network(), BRANCHES)
    with pytest.raises(ValueError, match=message), route(network, routes):
        pass
    with pytest.raises(ValueError, match=message):
        extract_branch(network, "cleen")


def test_a_plain_network_is_all_clean() -> None:
    network = small_network()
    with route(network, {"clean": 4}):
        network(images(4))
    assert_same_state(extract_branch(network), network)
    with pytest.raises(ValueError, match="no batch-norm branch 'multi_target'; there are: clean"):
        extract_branch(network, "multi_target")


def test_an_unused_branch_gets_no_gradient() -> None:
    layer = MultiBatchNorm2d(3, BRANCHES)
    with route(layer, {"clean": 4, "single_target": 0, "multi_target": 2}):
        layer(images(6)).square().sum().backward()
    assert layer.branches["single_target"].weight.grad is None
    assert layer.branches["multi_target"].weight.grad is not None


# --- statistics ---


def test_reset_statistics_forgets_those_of_all_branches_but_one() -> None:
    network = convert_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), ("clean", "a", "b"))
    randomize_norms(network)
    before = copy.deepcopy(network.state_dict())
    reset_statistics(network)
    for key, value in network.state_dict().items():
        if ".a." in key or ".b." in key:
            start = {"running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0}
            name = key.rsplit(".", 1)[1]
            assert torch.equal(value, torch.full_like(value, start[name])) if name in start else True
        if "clean" in key or key.endswith(("weight", "bias")):
            assert torch.equal(value, before[key]), key


def test_gradients_of_images_alone_keep_no_inputs_in_eval_mode() -> None:
    layer = randomize_norms(MultiBatchNorm2d(3, BRANCHES)).eval().requires_grad_(False)
    x = images(4).requires_grad_(True)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, route(layer, {"clean": 2, "multi_target": 2}):
        layer(x).sum().backward()
    assert kept
    assert all(tensor.data_ptr() != x.data_ptr() for tensor in kept)
