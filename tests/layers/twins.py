"""A layer with branches beside its twin, whose norms are called slice by slice."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from mdprop.layers import MultiBatchNorm2d, route
from tests.layers.networks import BRANCHES, assert_same_state

SIZES = {"clean": 4, "single_target": 2, "multi_target": 3}


def layer_and_copy(multi: type[nn.Module] = MultiBatchNorm2d, **options: Any) -> tuple[nn.Module, nn.Module]:
    """A layer whose branches differ, and another one like it."""
    layer = multi(3, BRANCHES, **options)
    generator = torch.Generator().manual_seed(0)
    for tensor in layer.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return layer, copy.deepcopy(layer)


def one_by_one(layer: nn.Module, x: Tensor) -> Tensor:
    parts = x.split(list(SIZES.values()))
    return torch.cat([layer.branches[name](part) for name, part in zip(SIZES, parts, strict=True)])


def routed(layer: nn.Module, x: Tensor) -> Tensor:
    with route(layer, SIZES):
        return layer(x)


def inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(9, *shape, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_(True)


def assert_the_same(layer: nn.Module, twin: nn.Module, x: Tensor) -> None:
    """Equal outputs, statistics and gradients, bit by bit, for two batches that differ."""
    for batch in (x, (1 - 2 * x).detach().requires_grad_(x.requires_grad)):
        out, expected = routed(layer, batch), one_by_one(twin, batch)
        assert torch.equal(out, expected)
        assert out.stride() == expected.stride()
        assert_same_state(layer, twin)
        weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(2)).to(out)
        wanted = [value for value in (batch, *layer.parameters()) if value.requires_grad]
        mine = torch.autograd.grad(out, wanted, weight, allow_unused=True)
        wanted = [value for value in (batch, *twin.parameters()) if value.requires_grad]
        theirs = torch.autograd.grad(expected, wanted, weight, allow_unused=True)
        for gradient, other in zip(mine, theirs, strict=True):
            assert (gradient is None) == (other is None)
            if gradient is not None:
                assert torch.equal(gradient, other)
                assert gradient.stride() == other.stride()
