"""Train with a loss of your own: any module of (embeddings [B, D] of unit norm, labels [B]) -> scalar."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import mdprop


class PullAndPush(nn.Module):
    """The mean distance within a class, and beyond a margin the lack of it between classes."""

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        distances = torch.cdist(embeddings, embeddings)
        same = labels[:, None] == labels
        return distances[same].mean() + (self.margin - distances[~same]).clamp(min=0).mean()


def stripes(classes: range, generator: torch.Generator) -> DataLoader[tuple[Tensor, ...]]:
    """Ten noisy images [1, 28, 28] of each class, which is a direction of stripes."""
    labels = torch.tensor(list(classes)).repeat(10)
    angle, place = labels[:, None, None] * 0.26, torch.arange(28) / 3
    waves = torch.sin(place[:, None] * angle.cos() + place * angle.sin())
    images = 0.5 + 0.3 * waves + 0.15 * torch.randn(waves.shape, generator=generator)
    return DataLoader(TensorDataset(images.clamp(0, 1)[:, None], labels), 32, shuffle=True)


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    train, test = stripes(range(8), generator), stripes(range(8, 12), generator)
    for method in ("standard", "mdprop"):
        model = mdprop.fit("conv4", train, method=method, loss=PullAndPush(), epochs=3)
        found = mdprop.evaluate(model, test, epsilon=0.03, queries=20)
        print(f"{method}: Recall@1 {found.recall[1]:.1%}, worst case {found.worst_case:.1%}")


if __name__ == "__main__":
    main()
