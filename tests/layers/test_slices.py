"""Slices that write into one output, against each branch's batch norm called on its slice."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from mdprop.layers import MultiBatchNorm1d, MultiBatchNorm2d, MultiBatchNorm3d, route, slices
from tests.helpers import randomize_norms
from tests.layers.networks import BRANCHES, assert_same_state, images
from tests.layers.twins import assert_the_same, inputs, layer_and_copy, one_by_one, routed

CASES: dict[str, tuple[type[nn.Module], tuple[int, ...], torch.memory_format]] = {
    "flat": (MultiBatchNorm1d, (3,), torch.contiguous_format),
    "1d": (MultiBatchNorm1d, (3, 5), torch.contiguous_format),
    "1d, as long as a slice": (MultiBatchNorm1d, (3, 2), torch.contiguous_format),
    "2d": (MultiBatchNorm2d, (3, 5, 4), torch.contiguous_format),
    "2d, channels last": (MultiBatchNorm2d, (3, 5, 4), torch.channels_last),
    "2d, one pixel": (MultiBatchNorm2d, (3, 1, 1), torch.channels_last),
    "3d": (MultiBatchNorm3d, (3, 2, 3, 4), torch.contiguous_format),
    "3d, channels last": (MultiBatchNorm3d, (3, 2, 3, 4), torch.channels_last_3d),
}


@pytest.fixture(autouse=True)
def no_concatenation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calling the norms is an error."""
    monkeypatch.setattr(slices, "_one_by_one", None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
def test_every_rank_and_layout(case: str, dtype: torch.dtype) -> None:
    multi, shape, layout = CASES[case]
    layer, twin = layer_and_copy(multi)
    x = inputs(shape, dtype).detach().contiguous(memory_format=layout).requires_grad_(True)
    assert_the_same(layer.to(dtype), twin.to(dtype), x)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_half_precision_inputs_of_layers_in_float32(dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = inputs((3, 5, 4), dtype).detach().contiguous(memory_format=layout).requires_grad_(True)
    assert_the_same(*layer_and_copy(), x)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("momentum", [0.1, 0.7, 0.0, None])
def test_options(affine: bool, track: bool, momentum: float | None) -> None:
    options = {"affine": affine, "track_running_stats": track, "momentum": momentum, "eps": 1e-3}
    assert_the_same(*layer_and_copy(**options), inputs((3, 5, 4)))


@pytest.mark.filterwarnings("error")  # memory of another size is resized, with a warning
def test_one_channel() -> None:
    layer = randomize_norms(MultiBatchNorm2d(1, BRANCHES))
    assert_the_same(layer, copy.deepcopy(layer), inputs((1, 5, 4)))
    assert_the_same(*layer_and_copy(), inputs((3, 5, 4)))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_eval_mode_in_all_branches(affine: bool, dtype: torch.dtype) -> None:
    layer, twin = layer_and_copy(affine=affine)
    x = inputs((3, 5, 4), dtype)
    mine, theirs = routed(layer.eval(), x), one_by_one(twin.eval(), x)
    assert_close(mine, theirs)
    assert_close(*(torch.autograd.grad(out.square().sum(), x)[0] for out in (mine, theirs)))
    assert_same_state(layer, twin)


@pytest.mark.parametrize("frozen", [("clean",), ("single_target", "multi_target")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_branches_in_eval_mode_beside_others(frozen: tuple[str, ...], dtype: torch.dtype) -> None:
    layer, twin = layer_and_copy()
    for name in frozen:
        layer.branches[name].eval()
        twin.branches[name].eval()
    assert_the_same(layer, twin, inputs((3, 5, 4), dtype))
    assert [int(norm.num_batches_tracked) for norm in layer.branches.values()] == [
        0 if name in frozen else 2 for name in BRANCHES
    ]


def test_statistics_switched_off_in_eval_mode() -> None:
    layer, twin = layer_and_copy(track_running_stats=False)
    assert_the_same(layer.eval(), twin.eval(), inputs((3, 5, 4)))


def test_statistics_that_are_there_but_not_tracked() -> None:
    layer, twin = layer_and_copy()
    for norm in (*layer.branches.values(), *twin.branches.values()):
        norm.track_running_stats = False
    assert_the_same(layer, twin, inputs((3, 5, 4)))


@pytest.mark.parametrize("kept", ["x", "weights", "biases", "clean's"])
def test_gradients_of_a_part_only(kept: str) -> None:
    layer, twin = layer_and_copy()
    x = inputs((3, 5, 4)).detach().requires_grad_(kept == "x")
    for norms in (layer.branches, twin.branches):
        for name, norm in norms.items():
            norm.weight.requires_grad_(kept == "weights" or (kept == "clean's" and name == "clean"))
            norm.bias.requires_grad_(kept == "biases")
    assert_the_same(layer, twin, x)


def test_gradients_that_nobody_asks_for_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, _ = layer_and_copy()
    layer.branches["clean"].requires_grad_(False)
    asked = []
    kernel = slices._GRADIENTS
    monkeypatch.setattr(slices, "_GRADIENTS", lambda *given: asked.append(given[-1]) or kernel(*given))
    x = inputs((3, 5, 4))
    routed(layer, x).sum().backward()
    routed(layer, x.detach()).sum().backward()
    assert asked == [[True, False, False], [True] * 3, [True] * 3, [False, True, True], [False, True, True]]


def test_gradients_by_differences() -> None:
    layer, _ = layer_and_copy()
    layer.double().branches["single_target"].eval()
    x = inputs((3, 3, 2), torch.float64)
    wanted = (x, *layer.parameters())
    assert torch.autograd.gradcheck(lambda *_: routed(layer, x), wanted)


def test_an_activation_may_overwrite_the_output() -> None:
    layer, twin = layer_and_copy()
    x = inputs((3, 5, 4))
    (gradient,) = torch.autograd.grad(nn.functional.relu(routed(layer, x), inplace=True).square().sum(), x)
    (expected,) = torch.autograd.grad(one_by_one(twin, x).relu().square().sum(), x)
    assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("expanded", [True, False])
def test_gradients_of_another_layout(expanded: bool) -> None:
    layer, twin = layer_and_copy()
    x = inputs((3, 5, 4))
    shown = x.contiguous(memory_format=torch.channels_last)
    weight = torch.ones(()).expand(x.shape) if expanded else torch.randn(x.shape)
    mine, theirs = (
        torch.autograd.grad(forward(one, shown), x, weight)[0]
        for forward, one in ((routed, layer), (one_by_one, twin))
    )
    assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_without_gradients() -> None:
    layer, twin = layer_and_copy()
    with torch.no_grad():
        out, expected = routed(layer, inputs((3, 5, 4))), one_by_one(twin, inputs((3, 5, 4)))
    assert torch.equal(out, expected)
    assert not out.requires_grad
    assert_same_state(layer, twin)


def test_in_autocast() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 3, 3), MultiBatchNorm2d(3, BRANCHES))
    randomize_norms(network)
    twin = copy.deepcopy(network)
    x = images(9)
    with torch.autocast("cpu", torch.bfloat16):
        out = routed(network, x)
        expected = one_by_one(twin[1], twin[0](x))
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected)
    out.float().square().sum().backward()
    expected.float().square().sum().backward()
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)
    assert_same_state(network, twin)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_is_kept(layout: torch.memory_format) -> None:
    layer, _ = layer_and_copy()
    x = inputs((3, 5, 4)).detach().contiguous(memory_format=layout).requires_grad_(True)
    out = routed(layer, x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert out.is_contiguous(memory_format=layout)
    assert gradient.is_contiguous(memory_format=layout)


# --- errors ---


def test_one_value_a_channel_is_refused_as_by_pytorch_before_anything_moves() -> None:
    layer, twin = layer_and_copy(MultiBatchNorm1d)
    x = torch.randn(3, 3)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel") as expected:
        twin.branches["clean"](x[:1])
    before = copy.deepcopy(layer)
    with (
        route(layer, {"multi_target": 2, "clean": 1}),
        pytest.raises(ValueError, match="Expected more than 1 value per channel") as error,
    ):
        layer(x)
    assert str(error.value) == str(expected.value)
    assert_same_state(layer, before)
    layer.branches["clean"].eval()
    with route(layer, {"multi_target": 2, "clean": 1}):
        assert torch.equal(layer(x)[2:], twin.branches["clean"].eval()(x[2:]))


def test_another_rank_is_refused_as_by_pytorch() -> None:
    layer, _ = layer_and_copy()
    with pytest.raises(ValueError, match=r"expected 4D input \(got 3D input\)"):
        routed(layer, torch.randn(9, 3, 4))


def test_a_gradient_of_the_gradient_is_refused() -> None:
    layer, _ = layer_and_copy()
    x = inputs((3, 5, 4))
    (gradient,) = torch.autograd.grad(routed(layer, x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()
