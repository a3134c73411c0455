from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mdprop.attacks.apgd import apgd
from mdprop.attacks.noise import noise
from mdprop.attacks.norms import BALLS
from mdprop.attacks.optimizers import OPTIMIZERS, Attempt
from mdprop.attacks.pgd import GradientLog, best_of, pgd
from mdprop.attacks.square import square

IMAGES = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
GOAL = torch.rand(4, 3, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
START = IMAGES + 0.02 * (GOAL - 0.5)


def distance(images: Tensor) -> Tensor:
    return (images - GOAL[: len(images)]).flatten(1).norm(dim=1)


def attempt(norm: str, epsilon: float = 0.1, restart: int = 0, log: GradientLog | None = None) -> Attempt:
    ball = BALLS[norm](IMAGES, epsilon, 0.0, 1.0)
    keys = [[5, image, restart] for image in range(4)]
    return Attempt(distance, START, ball, steps=6, step_size=epsilon / 4, keys=keys, log=log)


def test_a_name_is_the_optimizer_of_that_name() -> None:
    a = attempt("linf")
    expected = {
        "pgd": pgd(distance, START, a.ball, steps=6, step_size=0.025),
        "apgd": apgd(distance, START, a.ball, steps=6),
        "square": square(distance, a.ball, steps=6, keys=a.keys),
        "noise": noise(a.ball, a.keys),
    }
    assert OPTIMIZERS.keys() == expected.keys()
    for name, images in expected.items():
        assert torch.equal(OPTIMIZERS[name](a), images)


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_all_are_inside_repeatable_and_nothing_at_radius_0(name: str, norm: str) -> None:
    found = OPTIMIZERS[name](attempt(norm))
    moved = (found - IMAGES).flatten(1)
    assert (moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)).max() <= 0.1 + 1e-9
    assert found.min() >= 0
    assert found.max() <= 1
    assert not found.requires_grad
    assert found.dtype == IMAGES.dtype
    assert torch.equal(OPTIMIZERS[name](attempt(norm)), found)
    assert torch.equal(OPTIMIZERS[name](attempt(norm, epsilon=0.0)), IMAGES)


@pytest.mark.parametrize("norm", BALLS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_get_no_gradient_and_logs_hear_of_those_of_images(name: str, norm: str) -> None:
    weight = torch.nn.Parameter(torch.zeros(()))
    a = attempt(norm, log=GradientLog(IMAGES))
    flat = Attempt(lambda x: weight * distance(x), a.start, a.ball, 6, a.step_size, a.keys, a.log)
    OPTIMIZERS[name](flat)
    assert weight.grad is None
    assert a.log is not None
    assert a.log.zero.tolist() == [name in ("pgd", "apgd")] * 4
    assert not a.log.broken.any()


@pytest.mark.parametrize("name", ["square", "noise"])
def test_another_restart_is_another_attempt_of_which_the_better_is_kept(name: str) -> None:
    attempts = [OPTIMIZERS[name](attempt("linf", restart=restart)) for restart in range(3)]
    assert not torch.equal(attempts[0], attempts[1])
    _, reached = best_of(distance, attempts)
    assert torch.equal(reached, torch.stack([distance(images) for images in attempts]).amin(0))
