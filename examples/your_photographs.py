"""Train on a folder of your own photographs, a folder a class, and measure what was trained.

    python examples/your_photographs.py photos/train photos/test

The classes of the two folders differ: the network is to find what it has never seen.
"""

from __future__ import annotations

import argparse

import torch
from pytorch_metric_learning.samplers import MPerClassSampler
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import mdprop


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train", help="folder of training classes")
    parser.add_argument("test", help="folder of other classes")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=112, help="pixels of a side")
    parser.add_argument("--epochs", type=int, default=10)
    asked = parser.parse_args()

    pixels = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]  # in [0, 1]: no Normalize
    crop = v2.Compose([v2.RandomResizedCrop(asked.size, (0.4, 1)), v2.RandomHorizontalFlip(), *pixels])
    centre = v2.Compose([v2.Resize(asked.size), v2.CenterCrop(asked.size), *pixels])
    train, test = ImageFolder(asked.train, crop), ImageFolder(asked.test, centre)
    size = min(64, 4 * len(train.classes))
    pairs = MPerClassSampler(train.targets, m=4, batch_size=size, length_before_new_iter=len(train))

    model = mdprop.fit(asked.backbone, DataLoader(train, size, sampler=pairs), epochs=asked.epochs)
    print(mdprop.evaluate(model, DataLoader(test, 64), epsilon=4 / 255))


if __name__ == "__main__":
    main()
