from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mdprop.attacks.norms import BALLS, L2Ball, LinfBall
from mdprop.attacks.pgd import GradientLog, best_of, differentiate, pgd

IMAGES = torch.rand(5, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
GOAL = torch.rand(5, 2, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def distance(images: Tensor) -> Tensor:
    return (images - GOAL).flatten(1).norm(dim=1)


@pytest.mark.parametrize("norm", BALLS)
def test_many_steps_reach_the_nearest_point_of_the_ball(norm: str) -> None:
    ball = BALLS[norm](IMAGES, 0.3, 0.0, 1.0)
    found = pgd(distance, IMAGES, ball, steps=400, step_size=0.005)
    if norm == "linf":
        expected = torch.minimum(torch.maximum(GOAL, IMAGES - 0.3), IMAGES + 0.3)
    else:
        shift = GOAL - IMAGES
        expected = IMAGES + shift * (0.3 / shift.flatten(1).norm(dim=1)).clamp(max=1).view(-1, 1, 1, 1)
    assert_close(found, expected, rtol=0, atol=0.01)
    assert not found.requires_grad


def test_a_euclidean_step_is_a_plain_loop() -> None:
    ball = L2Ball(IMAGES, 0.2, 0.0, 1.0)
    found = pgd(distance, IMAGES, ball, steps=3, step_size=0.1)
    for i in range(len(IMAGES)):
        x = IMAGES[i].clone()
        for _ in range(3):
            direction = (x - GOAL[i]) / (x - GOAL[i]).norm()
            shift = x - 0.1 * direction - IMAGES[i]
            shift = shift * min(1.0, 0.2 / float(shift.norm()))
            x = (IMAGES[i] + shift).clamp(0, 1)
        assert_close(found[i], x)


@pytest.mark.parametrize("norm", BALLS)
def test_each_image_moves_as_if_it_were_alone(norm: str) -> None:
    ball = BALLS[norm](IMAGES, 0.1, 0.0, 1.0)
    together = pgd(distance, IMAGES, ball, steps=4, step_size=0.04)
    for i in range(5):
        alone = BALLS[norm](IMAGES[i : i + 1], 0.1, 0.0, 1.0)
        found = pgd(
            lambda x, i=i: (x - GOAL[i]).flatten(1).norm(dim=1),
            IMAGES[i : i + 1],
            alone,
            steps=4,
            step_size=0.04,
        )
        assert torch.equal(found[0], together[i])


@pytest.mark.parametrize("norm", BALLS)
def test_a_radius_for_each_image(norm: str) -> None:
    radii = torch.tensor([0.0, 0.02, 0.05, 0.1, 0.2], dtype=torch.float64).view(-1, 1, 1, 1)
    found = pgd(distance, IMAGES, BALLS[norm](IMAGES, radii, 0.0, 1.0), steps=9, step_size=radii / 4)
    moved = (found - IMAGES).flatten(1)
    sizes = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
    assert_close(sizes, radii.flatten())


@pytest.mark.parametrize("norm", BALLS)
def test_no_gradient_no_move(norm: str) -> None:
    found = pgd(
        lambda x: 0 * x.flatten(1).sum(1), IMAGES, BALLS[norm](IMAGES, 0.1, 0.0, 1.0), steps=2, step_size=0.1
    )
    assert_close(found, IMAGES)


def test_a_log_says_which_gradients_were_nothing_or_no_number() -> None:
    slopes = iter([[1, 0, 1, 1, torch.nan], [1, 1, 0, torch.inf, 1], [1, 1, 1, 1, 1]])

    def objective(images: Tensor) -> Tensor:
        return torch.tensor(next(slopes)) * images.flatten(1).sum(1)

    ball = LinfBall(IMAGES, 0.1, 0.0, 1.0)
    log = GradientLog(IMAGES)
    assert not log.zero.any()
    pgd(objective, IMAGES, ball, steps=3, step_size=0.05, log=log)
    assert log.zero.tolist() == [False, True, False, False, False]
    assert log.broken.tolist() == [False, False, False, True, True]
    assert GradientLog(IMAGES.to("meta")).zero.is_meta  # where the images are
    assert torch.equal(
        pgd(distance, IMAGES, ball, steps=2, step_size=0.05, log=log),
        pgd(distance, IMAGES, ball, steps=2, step_size=0.05),
    )
    assert log.zero.tolist() == [False, True, False, False, False]
    assert log.broken.tolist() == [False, False, False, True, True]


def test_values_and_gradients_of_each_image() -> None:
    with torch.no_grad():
        values, gradient = differentiate(distance, IMAGES)
    assert_close(values, distance(IMAGES))
    assert_close(gradient, (IMAGES - GOAL) / distance(IMAGES).view(-1, 1, 1, 1))
    assert not values.requires_grad
    assert not IMAGES.requires_grad


@pytest.mark.parametrize("norm", BALLS)
def test_starts_are_in_the_ball(norm: str) -> None:
    noise = 2 * torch.rand(50, 2, 3, 3, generator=torch.Generator().manual_seed(2)) - 1
    start = BALLS[norm].start(noise, 0.1).flatten(1)
    sizes = start.abs().amax(1) if norm == "linf" else start.norm(dim=1)
    assert sizes.max() <= 0.1 + 1e-6
    assert sizes.min() > 0.03
    assert_close(BALLS[norm].start(noise[:1], 0.1).flatten(1), start[:1])


def test_without_steps_the_start_is_clipped() -> None:
    assert_close(pgd(distance, IMAGES + 2, LinfBall(IMAGES, 0.1, 0.0, 1.0), steps=0, step_size=0.1),
                 (IMAGES + 0.1).clamp(max=1))  # fmt: skip


def test_each_image_keeps_its_best_attempt() -> None:
    attempts = [IMAGES, GOAL, torch.cat([GOAL[:2], IMAGES[2:] + 9])]
    taken: list[int] = []

    def made() -> Iterator[Tensor]:
        for number, images in enumerate(attempts):
            taken.append(number)
            yield images

    images, reached = best_of(distance, made())
    assert_close(images, GOAL)
    assert_close(reached, torch.zeros(5, dtype=torch.float64))
    assert taken == [0, 1, 2]
    tied, _ = best_of(lambda images: torch.zeros(len(images)), iter(attempts))
    assert_close(tied, attempts[0])
    images, reached = best_of(distance, iter([IMAGES]))
    assert_close(images, IMAGES)
    assert_close(reached, distance(IMAGES))
    with pytest.raises(ValueError, match="no attempt to choose from"):
        best_of(distance, [])
