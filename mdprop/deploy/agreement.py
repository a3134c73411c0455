"""Whether two networks find the same neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mdprop.metrics.neighbours import nearest_neighbours

IMAGES = 100
NEIGHBOURS = 10
TOLERANCE = 1e-4
"""Of embeddings of unit norm, and of their distances: rounding by other kernels stays a tenth below."""


@dataclass(frozen=True)
class Agreement:
    """images: how many. difference: the largest distance of an image's two embeddings.

    misplaced: how much farther, by the first network's distances, the neighbours of the second are at most;
        0 where they are the same, and no more than rounding where two are as near as each other.
    """

    images: int
    difference: float
    misplaced: float

    @property
    def holds(self) -> bool:
        return self.difference <= TOLERANCE and self.misplaced <= TOLERANCE

    @classmethod
    def of(cls, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> Agreement:
        """ours, theirs: [N, D], two networks' embeddings of the same images."""
        if ours.shape != theirs.shape or not np.isfinite(theirs).all():
            return cls(len(ours), np.inf, np.inf)
        depth = min(NEIGHBOURS, len(ours) - 1)
        first, second = (
            np.linalg.norm(ours[nearest_neighbours(found, depth)] - ours[:, None], axis=-1)
            for found in (ours, theirs)
        )
        difference = np.linalg.norm(ours - theirs, axis=1).max()
        return cls(len(ours), float(difference), float(np.abs(first - second).max()))


def generated_images(channels: int, size: int, count: int = IMAGES) -> Tensor:
    """Clouds of colour with grain, each another: [count, channels, size, size] in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(count, channels, size, size)
    for cells, weight in ((2, 0.4), (5, 0.3), (11, 0.2)):
        noise = torch.rand(count, channels, cells, cells, generator=generator)
        total += weight * F.interpolate(noise, size=(size, size), mode="bilinear", align_corners=False)
    return total + 0.1 * torch.rand(total.shape, generator=generator)
