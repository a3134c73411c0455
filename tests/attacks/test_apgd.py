from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mdprop.attacks.apgd import apgd, checkpoints
from mdprop.attacks.norms import BALLS
from mdprop.attacks.pgd import GradientLog, pgd
from tests.helpers import small_embedder

IMAGES = torch.rand(6, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
GOAL = torch.rand(6, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
WEIGHTS = 0.05 + torch.rand(6, 2, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
RADIUS = {"linf": 0.2, "l2": 0.8}


def squared(images: Tensor) -> Tensor:
    return (WEIGHTS * (images - GOAL) ** 2).flatten(1).sum(1)


def wavy(images: Tensor) -> Tensor:
    """With many minima, so that step sizes are halved at different times."""
    return torch.sin(9 * images * WEIGHTS + 5 * GOAL).flatten(1).sum(1)


def constrained_optimum(norm: str, upper: float) -> Tensor:
    """Of `squared` in the ball and in [0, upper], by bisection of the multiplier of the norm."""
    if norm == "linf":
        low, high = (IMAGES - 0.2).clamp(min=0), (IMAGES + 0.2).clamp(max=upper)
        return torch.minimum(torch.maximum(GOAL, low), high)

    def at(multiplier: Tensor) -> Tensor:
        return ((WEIGHTS * GOAL + multiplier * IMAGES) / (WEIGHTS + multiplier)).clamp(0, upper)

    low, high = torch.zeros(6, 1, 1, 1, dtype=torch.float64), torch.full((6, 1, 1, 1), 1e3).double()
    for _ in range(100):
        middle = (low + high) / 2
        outside = (at(middle) - IMAGES).flatten(1).norm(dim=1).view(-1, 1, 1, 1) > 0.8
        low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
    return at(high)


@pytest.mark.parametrize("upper", [1.0, 5.0])
@pytest.mark.parametrize("norm", BALLS)
def test_it_reaches_the_constrained_optimum(norm: str, upper: float) -> None:
    expected = constrained_optimum(norm, upper)
    found = apgd(squared, IMAGES, BALLS[norm](IMAGES, RADIUS[norm], 0.0, upper), steps=300)
    assert_close(squared(found), squared(expected), rtol=1e-3, atol=1e-5)
    assert_close(found, expected, rtol=0, atol=0.02)


def plain_loop(norm: str, objective: Callable[[Tensor], Tensor], x0: Tensor, image: Tensor, n: int) -> Tensor:
    """One image by the paper's algorithm, in its words, but for the momentum after a halving."""
    radius = RADIUS[norm]

    def project(x: Tensor) -> Tensor:
        shift = x - image
        if norm == "linf":
            shift = shift.clamp(-radius, radius)
        else:
            shift = shift * min(1.0, radius / float(shift.norm()))
        return (image + shift).clamp(0, 1)

    def slope(x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(x), x)
        return gradient.sign() if norm == "linf" else gradient / gradient.norm()

    def value(x: Tensor) -> float:
        return float(objective(x))

    eta, path = 2 * radius, [x0, project(x0 - 2 * radius * slope(x0))]
    best = min(path, key=value)
    shares, ends = [0.0, 0.22], []
    while shares[-1] < 1:
        shares.append(shares[-1] + max(shares[-1] - shares[-2] - 0.03, 0.06))
    ends = [0, *sorted({-int(-round(share * n, 6) // 1) for share in shares[1:]})]
    improved, old_best, kept_eta = int(value(path[1]) < value(path[0])), value(x0), True
    previous, x = path
    for k in range(1, n + 1):
        if k in ends:
            since = k - ends[ends.index(k) - 1]
            if improved < 0.75 * since or (kept_eta and value(best) == old_best):
                eta, x, previous, kept_eta = eta / 2, best, best, False
            else:
                kept_eta = True
            improved, old_best = 0, value(best)
        if k == n:
            return best
        z = project(x - eta * slope(x))
        new = project(x + 0.75 * (z - x) + 0.25 * (x - previous))
        improved += value(new) < value(x)
        previous, x = x, new
        best = min(best, x, key=value)
    raise AssertionError


@pytest.mark.parametrize("steps", [1, 7, 40, 100])
@pytest.mark.parametrize("norm", BALLS)
def test_it_is_the_papers_algorithm(norm: str, steps: int) -> None:
    start = (IMAGES + 0.05 * (GOAL - 0.5)).clamp(0, 1)
    found = apgd(wavy, start, BALLS[norm](IMAGES, RADIUS[norm], 0.0, 1.0), steps=steps)
    for i in range(6):
        own = WEIGHTS[i], GOAL[i]
        expected = plain_loop(
            norm, lambda x, own=own: torch.sin(9 * x * own[0] + 5 * own[1]).sum(), start[i], IMAGES[i], steps
        )
        assert_close(found[i], expected)


def test_checkpoints_are_those_of_the_paper() -> None:
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99, 100]
    assert checkpoints(1) == [1]
    assert checkpoints(50)[:3] == [11, 21, 29]


@pytest.mark.parametrize("norm", BALLS)
def test_each_image_moves_as_if_it_were_alone(norm: str) -> None:
    model = small_embedder(channels=3).eval()
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    direction = torch.linspace(-1, 1, 6)

    def objective(x: Tensor) -> Tensor:
        """The network image by image, as its own sums may depend on the batch."""
        return torch.cat([model(one[None]) @ direction for one in x])

    together = apgd(objective, images, BALLS[norm](images, 0.1, 0.0, 1.0), steps=12)
    for i in range(5):
        own = images[i : i + 1]
        alone = apgd(objective, own, BALLS[norm](own, 0.1, 0.0, 1.0), steps=12)
        assert torch.equal(alone[0], together[i])


@pytest.mark.parametrize("kind", ["towards", "away"])
@pytest.mark.parametrize("norm", BALLS)
def test_it_beats_plain_descent_on_a_network(norm: str, kind: str) -> None:
    model = small_embedder(channels=3).eval()
    generator = torch.Generator().manual_seed(4)
    images = torch.rand(16, 3, 16, 16, generator=generator)
    clean = model(images).detach()
    start = images + 0.01 * torch.randn(images.shape, generator=generator)

    def objective(x: Tensor) -> Tensor:
        return (
            (model(x) - clean.flip(0)).norm(dim=1) if kind == "towards" else -(model(x) - clean).norm(dim=1)
        )

    ball = BALLS[norm](images, 0.05 if norm == "linf" else 0.7, 0.0, 1.0)
    ours = objective(apgd(objective, start, ball, steps=20)).mean()
    for share in (1 / 20, 1 / 8):
        assert isinstance(ball.epsilon, float)
        theirs = objective(pgd(objective, start, ball, steps=20, step_size=share * ball.epsilon)).mean()
        assert ours < theirs


@pytest.mark.parametrize("steps", [0, 1, 2, 9])
def test_it_looks_once_more_than_it_steps_and_differentiates_once_less(steps: int) -> None:
    looks: list[bool] = []

    def objective(images: Tensor) -> Tensor:
        looks.append(images.requires_grad)
        return squared(images)

    with torch.no_grad():
        found = apgd(objective, IMAGES, BALLS["linf"](IMAGES, 0.1, 0.0, 1.0), steps=steps)
    assert looks == ([True] * steps + [False] if steps else [])
    assert not found.requires_grad


@pytest.mark.parametrize("norm", BALLS)
def test_it_stays_in_the_ball_and_the_range(norm: str) -> None:
    radii = torch.tensor([0.0, 0.01, 0.05, 0.1, 0.2, 0.4], dtype=torch.float64).view(-1, 1, 1, 1)
    found = apgd(wavy, IMAGES + 3, BALLS[norm](IMAGES, radii, 0.0, 1.0), steps=15)
    moved = (found - IMAGES).flatten(1)
    sizes = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
    assert (sizes <= radii.flatten() + 1e-9).all()
    assert torch.equal(found[0], IMAGES[0])
    assert found.min() >= 0
    assert found.max() <= 1


def test_a_radius_for_each_channel() -> None:
    radii = torch.tensor([0.1, 0.0], dtype=torch.float64).view(2, 1, 1)
    found = apgd(squared, IMAGES, BALLS["linf"](IMAGES, radii, 0.0, 1.0), steps=10)
    assert torch.equal(found[:, 1], IMAGES[:, 1])
    assert 0.09 < (found - IMAGES)[:, 0].abs().max() <= 0.1 + 1e-9


@pytest.mark.parametrize("norm", BALLS)
def test_what_is_not_a_number_does_no_harm_and_is_told(norm: str) -> None:
    def objective(images: Tensor) -> Tensor:
        """No number for image 0, no gradient for image 1, one broken pixel in image 2."""
        values = squared(images)
        broken = (images[2, 0, 0, 0] * 0).sqrt()
        return torch.stack([values[0] * torch.nan, 0 * values[1], values[2] + broken, *values[3:]])

    log = GradientLog(IMAGES)
    found = apgd(objective, IMAGES, BALLS[norm](IMAGES, 0.1, 0.0, 1.0), steps=10, log=log)
    assert torch.equal(found[:2], IMAGES[:2])
    assert found.isfinite().all()
    assert (squared(found)[2:] < squared(IMAGES)[2:]).all()
    assert log.broken.tolist() == [True, False, True, False, False, False]
    assert log.zero.tolist() == [False, True, False, False, False, False]


def test_a_gradient_that_breaks_on_the_way_is_told() -> None:
    looks = iter([1.0, 1.0, torch.nan])
    log = GradientLog(IMAGES)
    apgd(lambda images: next(looks, 1.0) * squared(images), IMAGES, BALLS["linf"](IMAGES, 0.1, 0.0, 1.0),
         steps=4, log=log)  # fmt: skip
    assert log.broken.all()
    assert not log.zero.any()
