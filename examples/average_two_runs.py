"""A network between two: the weights of two trainings averaged, the batch norms' statistics estimated anew.

After `dvc repro`, whose images and runs it reads:

    mdprop measure examples/average_two_runs.py:halfway --out measured/halfway
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from mdprop.data.loading.datasets import BATCH_SIZE, load_images
from mdprop.data.loading.transforms import test_transform
from mdprop.data.stores.images import ImageStore
from mdprop.deploy.trained import Trained

RUNS = Path("runs/standard/0"), Path("runs/at/0")
IMAGES = Path("data/prepared/glyphs/train.arrow")
DRAWN = 1024


def average(first: nn.Module, second: nn.Module, share: float, images: Tensor) -> nn.Module:
    """`first`, in place: every weight taken `share` of the way to `second`.

    images: [N, C, H, W] in [0, 1], on which the running statistics of the batch norms are estimated.
    """
    theirs = dict(second.named_parameters())
    with torch.no_grad():
        for name, parameter in first.named_parameters():
            parameter.lerp_(theirs[name], share)
    update_bn(images.split(BATCH_SIZE), first)
    return first.eval()


def between(share: float) -> nn.Module:
    first, second = (Trained.at(run) for run in RUNS)
    store, seen = ImageStore(IMAGES), first.preprocessing
    drawn = np.random.default_rng(0).choice(len(store), min(DRAWN, len(store)), replace=False)
    images = load_images(store, drawn, test_transform(seen.resize, seen.image_size))
    return average(first.load("cpu"), second.load("cpu"), share, images)


quarter, halfway, three_quarters = (partial(between, share) for share in (0.25, 0.5, 0.75))
