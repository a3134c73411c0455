"""Small grey images of four classes, a tensor of floats in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def pictures(count: int, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images [count, 1, 16, 16] and labels [count]: a pattern a class, under noise; all differ."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(classes, 1, 16, 16, generator=generator)
    labels = torch.arange(count) % classes
    noise = 0.3 * torch.randn(count, 1, 16, 16, generator=generator)
    return (patterns[labels] + noise).clamp(0, 1), labels
