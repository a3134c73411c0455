from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mdprop.attacks.noise import generators, noise
from mdprop.attacks.norms import BALLS

IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
KEYS = [[7, image, 0] for image in range(6)]


@pytest.mark.parametrize("norm", BALLS)
def test_it_has_the_full_norm_where_the_range_allows(norm: str) -> None:
    radii = torch.tensor([0.0, 0.01, 0.05, 0.1, 0.2, 0.4]).view(-1, 1, 1, 1)
    shift = (noise(BALLS[norm](IMAGES, radii, -9.0, 9.0), KEYS) - IMAGES).flatten(1)
    if norm == "linf":
        assert_close(shift.abs(), radii.flatten(1).expand_as(shift))
    assert_close(shift.abs().amax(1) if norm == "linf" else shift.norm(dim=1), radii.flatten())
    assert shift[-1].mean().abs() < shift[-1].abs().mean() / 4


@pytest.mark.parametrize("norm", BALLS)
def test_what_leaves_the_range_is_cut(norm: str) -> None:
    free = noise(BALLS[norm](IMAGES, 0.9, -9.0, 9.0), KEYS)
    assert free.min() < 0
    assert_close(noise(BALLS[norm](IMAGES, 0.9, 0.0, 1.0), KEYS), free.clamp(0, 1))


@pytest.mark.parametrize("norm", BALLS)
def test_it_follows_the_key_of_each_image_whatever_the_batch(norm: str) -> None:
    together = noise(BALLS[norm](IMAGES, 0.1, 0.0, 1.0), KEYS)
    for i in range(6):
        own = BALLS[norm](IMAGES[i : i + 1], 0.1, 0.0, 1.0)
        assert torch.equal(noise(own, KEYS[i : i + 1])[0], together[i])
        assert not torch.equal(noise(own, [[7, i, 1]])[0], together[i])


@pytest.mark.parametrize("norm", BALLS)
def test_what_a_key_draws_is_what_numpy_draws(norm: str) -> None:
    """So that a seed gives the same noise anywhere; in single precision, which numpy draws otherwise."""
    drawn = torch.from_numpy(np.random.default_rng(KEYS[4]).standard_normal((3, 8, 8), dtype=np.float32))
    way = drawn.sign() if norm == "linf" else drawn / drawn.norm()
    assert_close(noise(BALLS[norm](IMAGES, 0.1, -9.0, 9.0), KEYS)[4], IMAGES[4] - 0.1 * way)


def test_a_key_has_draws_of_its_own() -> None:
    first, second, again = generators([[1, 2, 0], [1, 2, 1], [1, 2, 0]])
    draws = [rng.random() for rng in (first, second, again)]
    assert draws[0] == draws[2] != draws[1]
