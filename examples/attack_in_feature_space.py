"""Move images, within a small ball, so that their embeddings approach those of other images."""

from __future__ import annotations

import torch

from mdprop.attacks import choose_targets, feature_attack
from mdprop.models import build_model

EPSILON = 8 / 255  # radius of the L-infinity ball, in pixels of [0, 1]


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    model = build_model("conv4", 32, mean=[0.5], std=[0.25]).eval()
    images = torch.rand(8, 1, 28, 28, generator=generator)
    labels = torch.arange(8) // 2  # two images a class
    with torch.no_grad():
        clean = model(images)
    for name, count in (("single-targeted", 1), ("multi-targeted", 5)):
        targets = choose_targets(clean, labels, count, "other_class", generator)  # [count, 8, 32]
        attacked = feature_attack(
            model, images, targets, epsilon=EPSILON, steps=10, step_size=EPSILON / 4, lower=0.0, upper=1.0
        )
        with torch.no_grad():
            moved = model(attacked)
        before, after = ((points - targets).norm(dim=-1).mean().item() for points in (clean, moved))
        change = (attacked - images).abs().max().item()
        print(f"{name}: mean distance {before:.3f} -> {after:.3f}, largest change of a pixel {change:.4f}")


if __name__ == "__main__":
    main()
