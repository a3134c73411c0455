"""A small network to convert, and images for it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.helpers import randomize_norms

BRANCHES = ("clean", "single_target", "multi_target")


class SmallNetwork(nn.Module):
    """Two convolutions and a linear layer, with batch norm of two ranks and one layer used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), self.bn)
        self.fc = nn.Linear(4, 6)
        self.last = nn.BatchNorm1d(6)
        self.nothing = None

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.fc(self.body(self.bn(self.conv(x))).mean((2, 3))))


def small_network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return randomize_norms(SmallNetwork(), seed)


def images(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 7, 6, generator=torch.Generator().manual_seed(seed))


def statistics(layer: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in layer.state_dict().items()}


def assert_same_state(module: nn.Module, other: nn.Module) -> None:
    state, expected = module.state_dict(), other.state_dict()
    assert list(state) == list(expected)
    for key, value in expected.items():
        assert torch.equal(state[key], value), key
