"""Gradient descent that chooses its step sizes: Auto-PGD (Croce and Hein 2020, arXiv 2003.01690)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mdprop.attacks.norms import Ball
from mdprop.attacks.pgd import GradientLog, Objective, differentiate

MOMENTUM = 0.75
"""The share of a new step in the move; the rest is of the last move. (The paper's α.)"""
IMPROVING = 0.75
"""The share of steps that must improve if the step size is to stay. (The paper's ρ.)"""


class _Points(NamedTuple):
    """Images [B, C, H, W], the objective there [B], and its gradient [B, C, H, W]."""

    images: Tensor
    values: Tensor
    gradient: Tensor


def apgd(
    objective: Objective, start: Tensor, ball: Ball, *, steps: int, log: GradientLog | None = None
) -> Tensor:
    """Of the images on a path through the ball, each with the lowest objective: [B, C, H, W], detached.

    A step from x_k goes η down its gradient, as `Ball.step` does, to z; then x_{k+1} is
    x_k + 0.75 (z − x_k) + 0.25 (x_k − x_{k−1}), clipped; x_1 is z. η begins at 2 epsilon. At each of
    `checkpoints` it is halved, and the path goes on from the best image so far, where the objective fell
    in fewer than 75 % of the steps since the last one, or where neither η nor the best objective has
    changed since. Each image has its own η and path.

    start: [B, C, H, W], clipped first. (The paper begins at random noise scaled to norm epsilon.)
    log: told of every gradient; components of it that are not finite count as 0, and an objective that is
        not a number as infinitely large.

    After a halving the first step has no momentum, as no step led to where it begins; the authors' code
    takes the difference from the image that it left. The objective is called `steps` + 1 times, with a
    gradient but for the last. No gradient reaches the weights.
    """
    images = ball.clip(start.detach())
    if not steps:
        return images
    here = best = _look(objective, images, log, first=True)
    before = here.images
    share, improved = images.new_ones(len(images)), images.new_zeros(len(images))
    reached, halved = best.values, torch.zeros_like(improved, dtype=torch.bool)
    ends, last_end = checkpoints(steps), 0
    for step in range(1, steps + 1):
        images = _move(here, before, ball, share, MOMENTUM if step > 1 else 1.0)
        if step == steps:
            break
        before, there = here.images, _look(objective, images, log)
        improved = improved + (there.values < here.values)
        here, best = there, _where(there.values < best.values, there, best)
        if step in ends:
            idle = ~halved & (best.values == reached)
            halved = (improved < IMPROVING * (step - last_end)) | idle
            share = torch.where(halved, share / 2, share)
            here = _where(halved, best, here)
            before = torch.where(_wide(halved), best.images, before)
            reached, improved, last_end = best.values, torch.zeros_like(improved), step
    with torch.no_grad():
        better = objective(images) < best.values
    return torch.where(_wide(better), images, best.images)


def checkpoints(steps: int) -> list[int]:
    """The numbers of steps after which step sizes are looked at.

    The first is after 22 % of them, each later interval is 3 % shorter, and none is below 6 %; rounded up.

    >>> checkpoints(100)[:6], checkpoints(10)
    ([22, 41, 57, 70, 80, 87], [3, 5, 6, 7, 8, 9, 10])
    """
    shares, interval = [22], 22
    while shares[-1] < 100:
        interval = max(interval - 3, 6)
        shares.append(min(shares[-1] + interval, 100))
    return sorted({-(-share * steps // 100) for share in shares})


def _look(objective: Objective, images: Tensor, log: GradientLog | None, first: bool = False) -> _Points:
    values, gradient = differentiate(objective, images)
    if log is not None:
        log.add(gradient, first)
    gradient = torch.where(gradient.isfinite(), gradient, 0.0)
    return _Points(images, values.masked_fill(values.isnan(), torch.inf), gradient)


def _move(here: _Points, before: Tensor, ball: Ball, share: Tensor, weight: float) -> Tensor:
    """The next images: a step of `share` [B] times the ball's diameter, and momentum from `before`."""
    stepped = ball.step(here.images, here.gradient, 2 * _wide(share) * ball.epsilon)
    return ball.clip(here.images + weight * (stepped - here.images) + (1 - weight) * (here.images - before))


def _where(chosen: Tensor, points: _Points, others: _Points) -> _Points:
    return _Points(
        torch.where(_wide(chosen), points.images, others.images),
        torch.where(chosen, points.values, others.values),
        torch.where(_wide(chosen), points.gradient, others.gradient),
    )


def _wide(numbers: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1]."""
    return numbers.view(-1, 1, 1, 1)
