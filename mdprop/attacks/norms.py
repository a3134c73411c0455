"""Balls around images, and steps within them."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

Bound = float | Tensor
"""A number, or a tensor that broadcasts to images [B, C, H, W]."""


class Ball(Protocol):
    """The images that an attack may make of `images`: within epsilon of them, and of [lower, upper]."""

    images: Tensor
    epsilon: Bound

    def __init__(self, images: Tensor, epsilon: Bound, lower: Bound, upper: Bound) -> None: ...

    def clip(self, moved: Tensor) -> Tensor:
        """Images inside, [B, C, H, W]: shrunk into the ball, then cut to the range.

        In "linf" they are the nearest; in "l2" only where the range does not cut.
        """

    def step(self, moved: Tensor, gradient: Tensor, size: Bound) -> Tensor:
        """A step of `size` in the norm, down the gradient [B, C, H, W] of each image, clipped."""

    @staticmethod
    def start(noise: Tensor, radius: Bound) -> Tensor:
        """Uniform noise in ±1 [B, C, H, W] as a start of at most `radius` in the norm."""


class LinfBall:
    def __init__(self, images: Tensor, epsilon: Bound, lower: Bound, upper: Bound) -> None:
        self.images, self.epsilon = images, epsilon
        lower, upper = (torch.as_tensor(bound).to(images) for bound in (lower, upper))
        self.low, self.high = torch.maximum(images - epsilon, lower), torch.minimum(images + epsilon, upper)

    def clip(self, moved: Tensor) -> Tensor:
        return torch.clamp(moved, self.low, self.high)

    def step(self, moved: Tensor, gradient: Tensor, size: Bound) -> Tensor:
        return self.clip(moved - size * gradient.sign())

    @staticmethod
    def start(noise: Tensor, radius: Bound) -> Tensor:
        return noise * radius


class L2Ball:
    def __init__(self, images: Tensor, epsilon: Bound, lower: Bound, upper: Bound) -> None:
        self.images, self.epsilon, self.lower, self.upper = images, epsilon, lower, upper

    def clip(self, moved: Tensor) -> Tensor:
        shift = moved - self.images
        shift = shift * torch.clamp(self.epsilon / _norms(shift), max=1.0)
        lower, upper = (torch.as_tensor(bound).to(moved) for bound in (self.lower, self.upper))
        return torch.clamp(self.images + shift, lower, upper)

    def step(self, moved: Tensor, gradient: Tensor, size: Bound) -> Tensor:
        return self.clip(moved - size * gradient / _norms(gradient))

    @staticmethod
    def start(noise: Tensor, radius: Bound) -> Tensor:
        return noise * (radius / noise[0].numel() ** 0.5)


BALLS: dict[str, type[Ball]] = {"linf": LinfBall, "l2": L2Ball}


def _norms(images: Tensor) -> Tensor:
    """Of each image, [B, 1, 1, 1]; tiny where it is 0."""
    norms = torch.linalg.vector_norm(images, dim=(1, 2, 3), keepdim=True)
    return norms.clamp(min=torch.finfo(norms.dtype).tiny)
