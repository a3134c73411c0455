"""Where a model's weights lie in memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mdprop.models.embedder import Embedder

SMALL_MAPS = ("layer3", "layer4")


def place(model: Embedder, device: str | torch.device) -> Embedder:
    """`model` on a device, in the layout that is fastest there; its outputs stay what they are.

    Channels-last, but on a CPU for the last two stages of torchvision's ResNets: there the maps are
    small, and oneDNN's contiguous convolutions faster (docs/performance.md).
    """
    model.to(device).to(memory_format=torch.channels_last)
    stages = [getattr(model.network, name, None) for name in SMALL_MAPS]
    if torch.device(device).type == "cpu" and isinstance(stages[0], nn.Module):
        for stage in stages:
            if isinstance(stage, nn.Module):
                stage.to(memory_format=torch.contiguous_format)
        stages[0].register_forward_pre_hook(_contiguous)
    return model


def _contiguous(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.contiguous() for value in inputs)
