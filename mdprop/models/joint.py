"""A network through all of its branches at once, for attacks on them together."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from mdprop.layers import multi_batchnorms, route
from mdprop.models.embedder import Embedder


class JointEmbedder(nn.Module):
    """[B, C, H, W] in [0, 1] -> [B, M · D] of unit norm: the embeddings of the M branches side by side.

    The squared distance of two images is the mean of those in the branches, and so is their cosine: what
    brings an image near another in this space brings it near through the branches together.

    Raises `ValueError` for a network without branches.
    """

    def __init__(self, model: Embedder) -> None:
        super().__init__()
        norms = multi_batchnorms(model)
        if not norms:
            raise ValueError("the network has no branches to attack together")
        self.model = model
        self.branches = tuple(norms[0].branches)

    @property
    def mean(self) -> Tensor:
        return self.model.mean

    @property
    def std(self) -> Tensor:
        return self.model.std

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self._through(branch, images) for branch in self.branches], 1) / (
            len(self.branches) ** 0.5
        )

    def _through(self, branch: str, images: Tensor) -> Tensor:
        with route(self.model, branch):
            return cast(Tensor, self.model(images))
