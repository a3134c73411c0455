"""Slices whose norms are called, as writing into one output would be wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.testing import assert_close

from mdprop.layers import route, slices
from tests.layers.networks import assert_same_state
from tests.layers.twins import SIZES, assert_the_same, inputs, layer_and_copy, one_by_one, routed


@pytest.fixture(autouse=True)
def no_writing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing into one output is an error."""
    monkeypatch.setattr(slices, "_normalize_once", None)


class OwnBatchNorm(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


def own_class(layer: nn.Module) -> None:
    norm = OwnBatchNorm(3)
    norm.load_state_dict(layer.branches["clean"].state_dict())
    layer.branches["clean"] = norm


def own_hook(layer: nn.Module) -> None:
    layer.branches["clean"].register_forward_hook(lambda norm, given, out: out * 2)


def own_weight(layer: nn.Module) -> None:
    parametrize.register_parametrization(layer.branches["clean"], "weight", nn.Softplus())


@pytest.mark.parametrize("change", [own_class, own_hook, own_weight])
def test_norms_that_do_something_else_are_called(change: Callable[[nn.Module], None]) -> None:
    layer, twin = layer_and_copy()
    change(layer)
    change(twin)
    assert_the_same(layer, twin, inputs((3, 5, 4)))
    x = inputs((3, 5, 4))
    assert torch.equal(routed(layer.eval(), x), one_by_one(twin.eval(), x))


@pytest.mark.parametrize("rows", [slice(None), slice(None, None, 2)])
def test_norms_are_called_for_unusual_strides(rows: slice) -> None:
    layer, twin = layer_and_copy()
    x = inputs((3, 5, 8)).transpose(2, 3)[:, :, rows]
    assert torch.equal(routed(layer, x), one_by_one(twin, x))


def test_torch_compile_sees_the_plain_norms() -> None:
    layer, twin = layer_and_copy()
    x = inputs((3, 5, 4))
    with route(layer, SIZES):
        out = torch.compile(layer, backend="aot_eager")(x)
    assert_close(out, one_by_one(twin, x))
    assert_same_state(layer, twin)
    out.square().sum().backward()
