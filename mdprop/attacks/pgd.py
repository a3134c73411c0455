"""Projected gradient descent on any objective, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from mdprop.attacks.goals.away import UNTARGETED
from mdprop.attacks.goals.towards import SINGLE_TARGET
from mdprop.attacks.norms import Ball, Bound, LinfBall

Objective = Callable[[Tensor], Tensor]
"""What is to become small, of each image by itself: [B, C, H, W] -> [B]."""


class GradientLog:
    """Which images' gradients cannot be trusted, [B] each; over several attacks, whether it ever was so.

    zero: exactly 0 in every pixel at a start. (Rightly so where the goal is reached already.)
    broken: not finite in some pixel at some step.
    """

    def __init__(self, images: Tensor) -> None:
        self.zero = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        self.broken = self.zero.clone()

    def add(self, gradient: Tensor, first: bool) -> None:
        """The gradient [B, C, H, W] of a step, of which `first` is taken at the start."""
        largest = gradient.abs().amax(dim=(1, 2, 3))
        self.broken |= ~largest.isfinite()
        if first:
            self.zero |= largest == 0


def differentiate(objective: Objective, images: Tensor) -> tuple[Tensor, Tensor]:
    """The objective of each image [B] and its gradient [B, C, H, W], both detached."""
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        values = objective(images)
        total = values.sum()
    (gradient,) = torch.autograd.grad(total, images)
    return values.detach(), gradient


def pgd(
    objective: Objective,
    start: Tensor,
    ball: Ball,
    *,
    steps: int,
    step_size: Bound,
    log: GradientLog | None = None,
) -> Tensor:
    """Images in the ball with a small objective: [B, C, H, W], detached.

    start: [B, C, H, W], the first point; the first gradient is taken there, and the first step's result
        is the first to be clipped, as in the authors' code. Without steps the start is clipped.
    step_size: in the ball's norm, a number or what broadcasts to images.
    log: told of every gradient.

    No gradient reaches the weights. The image at the last step is kept.
    """
    moved = start.detach()
    if not steps:
        return ball.clip(moved)
    for step in range(steps):
        _, gradient = differentiate(objective, moved)
        if log is not None:
            log.add(gradient, first=step == 0)
        moved = ball.step(moved, gradient, step_size)
    return moved


@torch.no_grad()
def best_of(objective: Objective, attempts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Of several attempts at the same images, each image's with the lowest objective.

    attempts: one or more of [B, C, H, W], of which memory holds two.
    Returns the images [B, C, H, W] and the objective that they reach [B].
    """
    best: tuple[Tensor, Tensor] | None = None
    for images in attempts:
        reached = objective(images)
        if best is None:
            best = images, reached
            continue
        better = (reached < best[1]) | best[1].isnan()
        kept = torch.where(better.view(-1, 1, 1, 1), images, best[0])
        best = kept, torch.where(better, reached, best[1])
    if best is None:
        raise ValueError("there is no attempt to choose from")
    return best


def feature_attack(
    embed: Callable[[Tensor], Tensor],
    images: Tensor,
    targets: Tensor | Callable[[Tensor], Tensor],
    *,
    epsilon: Bound,
    steps: int,
    step_size: Bound | None = None,
    lower: Bound,
    upper: Bound,
    start: Tensor | None = None,
    away: bool = False,
) -> Tensor:
    """Move images so that their embeddings approach the targets, within an L-infinity ball.

    Each step goes down the sign of the gradient of (mean over the T targets and the images of
    ‖f(x) − target‖₂)² (section 3.2 of the paper), then is clipped to the ball and to the valid range.

    embed: [B, C, H, W] -> [B, D], unit norm; in the mode and with the routes that the caller set.
    images: [B, C, H, W], in the units of `epsilon`, within [lower, upper].
    targets: [T, B, D], or a function of the embeddings [B, D] of the start that returns them.
    epsilon, step_size: a number or [C, 1, 1]; `step_size` None means epsilon / steps.
    lower, upper: the valid range of a pixel, a number or [C, 1, 1]. (The authors take the batch's
        own minimum and maximum.)
    start: noise [B, C, H, W] added to the images first; as in the authors' code, the first gradient
        is taken there, and the first step's result is the first to be clipped.
    away: move away from the targets (untargeted). At its own embedding an image has no gradient:
        give it a `start`.

    Returns [B, C, H, W], detached. No gradient reaches the weights. Raises `ValueError` for targets of
    another shape.
    """
    images = images.detach()
    if isinstance(targets, Tensor):
        _check_targets(targets, len(images))
    aims: Tensor | None = targets if isinstance(targets, Tensor) else None
    goal = UNTARGETED if away else SINGLE_TARGET

    def objective(moved: Tensor) -> Tensor:
        nonlocal aims
        embeddings = embed(moved)
        if aims is None:
            assert not isinstance(targets, Tensor)
            aims = targets(embeddings.detach())
            _check_targets(aims, len(images))
        return goal.objective(embeddings, aims)

    if not isinstance(epsilon, Tensor):
        epsilon = float(epsilon)
    if step_size is None:
        step_size = epsilon / max(steps, 1)
    ball = LinfBall(images, epsilon, lower, upper)
    first = images if start is None else images + start
    return pgd(objective, first, ball, steps=steps, step_size=step_size)


def _check_targets(targets: Tensor, images: int) -> None:
    if targets.ndim != 3 or targets.shape[1] != images:
        raise ValueError(f"targets must be [T, {images}, D], not {list(targets.shape)}")
