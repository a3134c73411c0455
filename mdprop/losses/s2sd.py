"""S2SD: a network learns from its own, larger embeddings of the same features."""

from __future__ import annotations

import operator
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class S2SDLoss(nn.Module):
    """Simultaneous similarity-based self-distillation (Roth et al. 2021; section 4.2 of the paper).

    Target branches embed the pooled features in more dimensions, each with a metric loss of its
    own; the similarities among the embeddings follow those among the targets:

    loss = (source + mean of the targets' losses) / 2 + weight · mean over branches of KL(target ‖ source)
           [+ feature_weight · KL(features ‖ source), after `feature_delay` training steps]

    where KL(a ‖ b) = temperature² · the mean over rows of the divergence between the softmax of
    a's and b's cosine similarities / temperature; no gradient flows through a.

    feature_dim: F, channels of the last feature map.
    source: the metric loss of the embeddings, called as source(embeddings, labels).
    targets: that of the branches; one module for all, or a sequence with one for each.
    target_dims: size of each branch's embedding.
    temperature: of the softmax.
    weight, feature_weight: of the divergences.
    feature_delay: training steps without the feature term; it is there from step feature_delay + 1 on.

    `takes_features` has the training step hand over the last feature map. `target_nets` are the
    branches. `steps` counts the calls in training mode; it is a buffer, so the state dict keeps it, and
    stays on the device: nothing waits for it.
    """

    takes_features = True
    steps: Tensor

    def __init__(
        self,
        feature_dim: int,
        source: nn.Module,
        targets: nn.Module | Sequence[nn.Module],
        target_dims: Sequence[int] = (512, 1024, 1536, 2048),
        temperature: float = 1.0,
        weight: float = 50.0,
        feature_weight: float = 50.0,
        feature_delay: int = 1000,
    ) -> None:
        super().__init__()
        try:
            dims = [operator.index(dim) for dim in target_dims]
        except TypeError:
            dims = []
        if min(dims, default=0) < 1:
            raise ValueError(f"target_dims = {list(target_dims)}: whole numbers above 0 are needed")
        if not temperature > 0:
            raise ValueError(f"temperature = {temperature}: a number above 0 is needed")
        if not (weight >= 0 and feature_weight >= 0 and feature_delay >= 0):
            raise ValueError(
                f"weight = {weight}, feature_weight = {feature_weight}, feature_delay = {feature_delay}: "
                "none may be below 0"
            )
        if not isinstance(targets, nn.Module):
            targets = nn.ModuleList(targets)
        if isinstance(targets, nn.ModuleList) and len(targets) != len(dims):
            raise ValueError(f"{len(targets)} target losses for {len(dims)} target_dims")
        self.source = source
        self.targets = targets
        self.target_nets = nn.ModuleList(
            nn.Sequential(nn.Linear(feature_dim, dim), nn.ReLU(), nn.Linear(dim, dim)) for dim in dims
        )
        self.temperature = temperature
        self.weight = weight
        self.feature_weight = feature_weight
        self.feature_delay = feature_delay
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, embeddings: Tensor, labels: Tensor, features: Tensor) -> Tensor:
        """embeddings [B, D] (normalised here), labels [B], features [B, F, H, W] -> scalar."""
        embeddings = F.normalize(embeddings)
        pooled = features.mean(dim=(2, 3)) + features.amax(dim=(2, 3))
        branches = [F.normalize(net(pooled)) for net in self.target_nets]
        losses = self.targets if isinstance(self.targets, nn.ModuleList) else [self.targets] * len(branches)
        target = torch.stack([loss(b, labels) for loss, b in zip(losses, branches, strict=True)]).mean()
        divergence = torch.stack([self._divergence(embeddings, b) for b in branches]).mean()
        late = self._divergence(embeddings, F.normalize(pooled)) * (self.steps >= self.feature_delay)
        if self.training:
            self.steps += 1
        return (
            (self.source(embeddings, labels) + target) / 2
            + self.weight * divergence
            + self.feature_weight * late
        )

    def _divergence(self, embeddings: Tensor, teacher: Tensor) -> Tensor:
        """How far the similarities [B, B] of embeddings are from those of the teacher."""
        teacher = teacher.detach()
        log_source = F.log_softmax(embeddings @ embeddings.T / self.temperature, dim=1)
        log_target = F.log_softmax(teacher @ teacher.T / self.temperature, dim=1)
        return self.temperature**2 * F.kl_div(log_source, log_target, reduction="batchmean", log_target=True)
