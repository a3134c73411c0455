"""An embedding network: pixels in [0, 1] to points on the unit sphere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Embedder(nn.Module):
    """Normalises pixels, runs a network whose last layer is the embedding, and L2-normalises.

    [B, C, H, W] in [0, 1] -> [B, D]. Because normalisation is inside, attacks work in pixels.

    network: a plain torchvision, timm or conv4 network; its keys stay as they are, so that
        `extract_branch(model.network)` is what torchvision loads.
    mean, std: one value a channel of the images. A grey image meets a network of three channels
        as three equal ones.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], in_channels: int
    ) -> None:
        super().__init__()
        self.network = network
        self.in_channels = in_channels
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        x = (images - self.mean) / self.std
        if x.shape[1] != self.in_channels:
            x = x.expand(-1, self.in_channels, -1, -1)
        return F.normalize(self.network(x), dim=-1)
