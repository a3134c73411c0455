"""Images as the network meets them: float tensors in [0, 1]; normalisation lives in the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.functional import pil_to_tensor


def test_transform(resize: int, image_size: int) -> v2.Transform:
    """Resize the short side to `resize` (nothing to do on a prepared store), then crop the centre."""
    return v2.Compose(
        [v2.Resize(resize, v2.InterpolationMode.BICUBIC), v2.CenterCrop(image_size), _ToTensor()]
    )


def train_transform(image_size: int, crop_scale: Sequence[float], flip: bool) -> v2.Transform:
    """A random resized crop of a share `crop_scale` of the area, and a mirror image half of the time."""
    steps: list[v2.Transform] = [v2.RandomResizedCrop(image_size, scale=tuple(crop_scale))]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    return v2.Compose([*steps, _ToTensor()])


def apply_seeded(transform: v2.Transform, image: Image.Image, seed: int) -> Tensor:
    """`transform(image)` drawn from `seed` alone, whatever the process or worker: [C, H, W]."""
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed every accelerator too, at ten times the cost of the crop.
        torch.default_generator.manual_seed(seed)
        return transform(image)


class _ToTensor(v2.Transform):
    """A PIL image as float32 [C, H, W] in [0, 1]."""

    def forward(self, image: Image.Image) -> Tensor:
        pixels: Tensor = pil_to_tensor(image)
        return pixels.float().div_(255)
