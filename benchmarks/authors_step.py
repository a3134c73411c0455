"""The authors' MDProp training step, stated again in plain PyTorch, to measure and to check against.

It does what theirs does, in their order. Known from the paper's description: the halves of the batch
and their targets, the objective, the one loss over 2B embeddings, the loop over anchors, the gradients
of the whole model copied to the host for a log line, Adam with the paper's settings. Read from the
public code (github intherejeet/MDProp: main.py, architectures/net.py, architectures/attacker.py,
criteria/multisimilarity.py), of which nothing is copied:

- images come normalised from the loader, in contiguous memory, and epsilon is in those units;
- the two attacks are separate passes over half a batch each; the target forward keeps its graph;
- their gradient is taken with `torch.autograd.grad` of the images, so they compute no gradient of
  the weights (which a plain `backward` would);
- the start noise is not clipped, the steps are, to the batch's own minimum and maximum, each of
  which is read on the host twice;
- in training all 2B images go through each convolution at once, and each batch norm cuts the batch
  and concatenates its outputs;
- Adam is PyTorch's default (neither fused nor, on a CPU, foreach); gradients are set to None twice;
  the loss is read on the host at every step.

Left out: DataParallel (one device), the data loader, the logger's lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

SINGLE, MULTI, MIXED = "single", "multi", "mixed"


class ThreeBatchNorms(nn.BatchNorm2d):
    """Itself for clean images, and one batch norm more for each kind of adversarial ones."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)
        self.single = nn.BatchNorm2d(num_features)
        self.multi = nn.BatchNorm2d(num_features)
        self.path = MIXED

    def forward(self, x: Tensor) -> Tensor:
        if self.path == SINGLE:
            return self.single(x)
        if self.path == MULTI:
            return self.multi(x)
        half, quarter = len(x) // 2, len(x) // 4
        clean = super().forward(x[:half])
        single = self.single(x[half : half + quarter])
        return torch.cat((clean, single, self.multi(x[half + quarter :])))


@dataclass(frozen=True)
class Draws:
    """The chance in one step: permutations [T, B/2] and start noise [B/2, C, H, W] of each half."""

    permutations: tuple[Tensor, Tensor]
    noise: tuple[Tensor, Tensor]


class AuthorsTraining:
    """A torchvision ResNet in training as theirs trains it; images [B, 3, H, W] come normalised."""

    def __init__(
        self,
        backbone: str,
        embedding_dim: int,
        *,
        targets: int = 5,
        epsilon: float = 0.01,
        steps: int = 1,
        start_noise: float = 0.0005,
        learning_rate: float = 1e-5,
        weight_decay: float = 4e-4,
    ) -> None:
        self.network: nn.Module = models.get_model(
            backbone, weights=None, num_classes=embedding_dim, norm_layer=ThreeBatchNorms
        )
        self.targets, self.epsilon, self.steps, self.start_noise = targets, epsilon, steps, start_noise
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=learning_rate, weight_decay=weight_decay
        )
        self.log: list[tuple[float, float]] = []

    def step(self, images: Tensor, labels: Tensor, draws: Draws | None = None) -> float:
        """One update of the weights; returns the loss. `draws` stands in for chance."""
        half = len(images) // 2
        permutations = draws.permutations if draws else (None, None)
        noise = draws.noise if draws else (None, None)
        self.network.eval()
        self._set_path(SINGLE)
        single = self.attack(images[:half], 1, permutations[0], noise[0])
        self._set_path(MULTI)
        multi = self.attack(images[half:], self.targets, permutations[1], noise[1])
        self.network.train()
        self._set_path(MIXED)
        embeddings = self.embed(torch.cat([images, single, multi]))
        loss = multi_similarity(embeddings, torch.cat([labels, labels[:half], labels[half:]]))
        self.optimizer.zero_grad()
        loss.backward()
        self._log_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()

    def attack(
        self, images: Tensor, count: int, permutations: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """Images moved towards `count` permutations of their own embeddings, on the path that is set."""
        embeddings = self.embed(images.clone())
        if permutations is None:
            permutations = torch.stack([torch.randperm(len(images)) for _ in range(count)])
        aims = [embeddings.detach().clone()[order] for order in permutations]
        low = torch.clamp(images - self.epsilon, images.min().item(), images.max().item())
        high = torch.clamp(images + self.epsilon, images.min().item(), images.max().item())
        if noise is None:
            noise = torch.empty_like(images).uniform_(-self.start_noise, self.start_noise)
        moved = images + noise
        for _ in range(self.steps):
            moved.requires_grad_(True)
            found = self.embed(moved)
            distance = torch.zeros(1, device=images.device)
            for aim in aims:
                distance = distance + torch.norm(aim - found, p=2, dim=1).mean()
            objective = (distance / len(aims)).pow(2)
            (gradient,) = torch.autograd.grad(objective, moved)
            moved = moved - gradient.sign() * (self.epsilon / self.steps)
            moved = torch.where(moved > low, moved, low)
            moved = torch.where(moved < high, moved, high).detach()
        return moved

    def embed(self, images: Tensor) -> Tensor:
        return F.normalize(self.network(images), dim=-1)

    def _set_path(self, path: str) -> None:
        for module in self.network.modules():
            if isinstance(module, ThreeBatchNorms):
                module.path = path

    def _log_gradients(self) -> None:
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        whole = np.concatenate([gradient.detach().cpu().numpy().ravel() for gradient in gradients])
        self.log.append((float(np.sqrt(np.mean(np.square(whole)))), float(np.max(np.abs(whole)))))


def multi_similarity(
    embeddings: Tensor,
    labels: Tensor,
    weights: Sequence[float] = (2.0, 40.0),
    margin: float = 0.1,
    threshold: float = 0.5,
) -> Tensor:
    """The multi-similarity loss, anchor by anchor; the mean over the anchors that keep pairs.

    Raises `RuntimeError` where no anchor keeps any, as theirs does.
    """
    similarity = embeddings @ embeddings.T
    terms = []
    for anchor in range(len(embeddings)):
        same = labels == labels[anchor]
        different = ~same
        same[anchor] = False
        positives, negatives = similarity[anchor][same], similarity[anchor][different]
        hard_negatives = negatives + margin > positives.min()
        hard_positives = positives - margin < negatives.max()
        if not hard_negatives.sum() or not hard_positives.sum():
            continue
        pulled = torch.exp(-weights[0] * (positives[hard_positives] - threshold)).sum()
        pushed = torch.exp(weights[1] * (negatives[hard_negatives] - threshold)).sum()
        terms.append(torch.log(1 + pulled) / weights[0] + torch.log(1 + pushed) / weights[1])
    return torch.stack(terms).mean()
