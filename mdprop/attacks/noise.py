"""Chance in an attack, each image's by a key of its own; and noise, which is nothing but chance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mdprop.attacks.norms import Ball

Keys = Sequence[Sequence[int]]
"""What each image's draws follow, for numpy's `default_rng`, such as [seed, image id, restart]: [B]."""


def generators(keys: Keys) -> list[np.random.Generator]:
    """One for each image, so that its draws do not depend on its batch."""
    return [np.random.default_rng(key) for key in keys]


def noise(ball: Ball, keys: Keys) -> Tensor:
    """Noise as large as the ball allows: [B, C, H, W]; what an attack must do better than.

    In "linf" every component is epsilon with a random sign, which moves embeddings farther than uniform
    noise of the same bound; in "l2" the direction is uniform (Gaussian) and its norm is epsilon. What
    leaves the valid range is cut.
    """
    shape = tuple(ball.images.shape[1:])
    drawn = np.stack([rng.standard_normal(shape, dtype=np.float32) for rng in generators(keys)])
    return ball.step(ball.images, torch.from_numpy(drawn).to(ball.images), ball.epsilon)
