"""ArcFace, a softmax over class centres with a margin on the angle."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ArcFaceLoss(nn.Module):
    """Additive angular margin loss (Deng et al. 2019, equation 3).

    With θ_c the angle between an embedding and the centre of class c, and y its own class, the
    loss is the cross entropy of the logits scale · cos(θ_y + margin) and scale · cos(θ_c), c ≠ y;
    the mean over the batch. Beyond θ_y = π − margin, where cos(θ_y + margin) would rise again, the
    logit is scale · (cos θ_y − margin · sin margin), as in Deng et al.'s own code.

    num_classes: labels are 0 … num_classes − 1.
    embedding_dim: D.
    margin: in radians, from 0 to π.
    scale: factor of the cosines, inverse temperature.

    `class_map` [num_classes, D] are the centres, of any length. Gradients stay finite where an
    embedding equals a centre or is opposite to it.

    The paper's authors clamp cosines at 1e-10, which kills the gradient of negative ones, and add
    the margin's change to the logits of all classes, where the softmax cancels it. Here negative
    cosines count and the margin is on the target only.
    """

    def __init__(
        self, num_classes: int, embedding_dim: int, margin: float = 0.5, scale: float = 16.0
    ) -> None:
        super().__init__()
        if not 0 <= margin <= math.pi:
            raise ValueError(f"margin = {margin}: it is an angle in radians, from 0 to π")
        if not 0 < scale < math.inf:
            raise ValueError(f"scale = {scale}: a number above 0 is needed")
        self.margin = margin
        self.scale = scale
        self.class_map = nn.Parameter(torch.empty(num_classes, embedding_dim))
        bound = embedding_dim**-0.5  # the authors' start; with Adam, the length sets how fast centres turn
        nn.init.uniform_(self.class_map, -bound, bound)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """embeddings [B, D] (their length plays no role), labels [B] -> scalar.

        Raises `ValueError` for a label outside 0 … num_classes − 1; on a GPU, which is not waited
        for, its own check fails instead.
        """
        if labels.device.type == "cpu":
            self._check(labels)
        labels = labels.long()
        cosines = F.normalize(embeddings) @ F.normalize(self.class_map).T
        target = cosines.gather(1, labels[:, None])
        sine = (1 - target.square()).clamp(min=torch.finfo(target.dtype).eps).sqrt()
        shifted = torch.where(
            target > -math.cos(self.margin),
            target * math.cos(self.margin) - sine * math.sin(self.margin),
            target - self.margin * math.sin(self.margin),
        )
        return F.cross_entropy(self.scale * cosines.scatter(1, labels[:, None], shifted), labels)

    def _check(self, labels: Tensor) -> None:
        low, high = labels.aminmax()
        if ((low < 0) | (high >= len(self.class_map))).item():
            raise ValueError(
                f"labels run from {low.item()} to {high.item()}; "
                f"with {len(self.class_map)} classes they must lie in 0 … {len(self.class_map) - 1}"
            )
