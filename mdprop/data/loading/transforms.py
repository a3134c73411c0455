"""Images as the network meets them; normalisation lives in the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.transforms import v2


def test_transform(resize: int, image_size: int) -> v2.Transform:
    """Resize the short side to `resize` (nothing to do on a prepared store), then crop the centre."""
    return v2.Compose([v2.Resize(resize, v2.InterpolationMode.BICUBIC), v2.CenterCrop(image_size)])


def train_transform(image_size: int, crop_scale: Sequence[float], flip: bool) -> v2.Transform:
    """A random resized crop of a share `crop_scale` of the area, and a mirror image half of the time."""
    crop = v2.RandomResizedCrop(image_size, scale=tuple(crop_scale))
    return v2.Compose([crop, v2.RandomHorizontalFlip()]) if flip else crop


def apply_seeded(transform: v2.Transform, image: Tensor, seed: int) -> Tensor:
    """`transform(image)` drawn from `seed` alone, whatever the process or worker: [C, H, W]."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed every accelerator too, at ten times the cost of the crop.
        torch.default_generator.manual_seed(seed)
        return transform(image)


def to_float(images: Tensor) -> Tensor:
    """Pixels as float32 in [0, 1], what networks are given: of uint8, as stores give them; floats stay."""
    return images.float().div_(255) if images.dtype == torch.uint8 else images.float()
