"""Adversarial examples in the feature space: images moved towards, or away from, embeddings."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mdprop.methods import TargetKind

Bound = float | Tensor


def choose_targets(
    embeddings: Tensor,
    labels: Tensor,
    count: int,
    kind: TargetKind,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Target embeddings for each row of a batch: [B, D] -> [T, B, D], detached.

    kind: see `target_rows`.
    """
    rows = target_rows(labels.cpu(), torch.arange(len(labels)), count, kind, generator)
    return embeddings.detach()[rows.to(embeddings.device)]


def target_rows(
    labels: Tensor,
    queries: Tensor,
    count: int,
    kind: TargetKind,
    generator: torch.Generator | None = None,
) -> Tensor:
    """For each query, `count` rows to aim at: labels [N], queries [Q] (rows) -> [T, Q].

    kind:
      "other_class"  rows of other classes, different ones where there are `count` of them;
      "same_class"   other rows of the query's class (the unadversarial goal); a row that is alone
                     in its class aims at itself;
      "any"          the authors' rule, `count` random permutations of all rows, where a target may
                     be the image itself or one of its class; needs queries = all rows.

    Raises `ValueError` when all rows are of one class and another is asked for.
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more, not {count}")
    if kind == "any":
        if len(queries) != len(labels):
            raise ValueError("kind 'any' permutes all rows: queries must be all of them")
        perms = [torch.randperm(len(labels), generator=generator) for _ in range(count)]
        return torch.stack(perms)[:, queries]
    # Rows sorted by class: a class is a block, other classes are what lies around it.
    order = torch.argsort(labels, stable=True)
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order))
    counts = torch.unique_consecutive(labels[order], return_counts=True)[1]
    ends = torch.repeat_interleave(counts.cumsum(0), counts)[position[queries]]
    size = torch.repeat_interleave(counts, counts)[position[queries]]
    if kind == "other_class":
        gap_start, gap, total = ends - size, size, len(labels) - size
        offset = torch.zeros_like(size)
        if (total == 0).any():
            raise ValueError("all rows are of one class: there is no other class to aim at")
    elif kind == "same_class":
        alone = size == 1
        gap = (~alone).long()
        total = size - gap
        offset = ends - size
        gap_start = position[queries] - offset
    else:
        raise ValueError(f"unknown target kind '{kind}'; known: other_class, same_class, any")
    drawn = _draw_distinct(total, count, generator)
    drawn = drawn + gap * (drawn >= gap_start) + offset
    return order[drawn]


def _draw_distinct(total: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Uniform integers below `total` [Q] -> [count, Q], different in a column where they can be.

    Floyd's sampling: draw i is below total - count + i + 1, or just that where its value is taken.
    """
    uniform = torch.rand(count, len(total), generator=generator, dtype=torch.float64)
    drawn = torch.empty(count, len(total), dtype=torch.long)
    enough = total >= count
    for i in range(count):
        top = torch.where(enough, total - count + i, total - 1)
        row = (uniform[i] * (top + 1)).long().minimum(top)
        taken = (drawn[:i] == row).any(0) & enough
        drawn[i] = torch.where(taken, top, row)
    return drawn


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

    Returns [B, C, H, W], detached. No gradient reaches the weights.
    """
    if isinstance(targets, Tensor):
        _check_targets(targets, len(images))
    if not isinstance(epsilon, Tensor):
        epsilon = float(epsilon)
    if step_size is None:
        step_size = epsilon / max(steps, 1)
    low, high = _clip_range(images, epsilon, lower, upper)
    adversarial = images.detach() if start is None else images.detach() + start
    for _ in range(steps):
        adversarial.requires_grad_(True)
        with torch.enable_grad():
            embeddings = embed(adversarial)
            if not isinstance(targets, Tensor):
                targets = targets(embeddings.detach())
                _check_targets(targets, len(images))
            distances = torch.linalg.vector_norm(embeddings - targets, dim=-1)
            objective = distances.mean().square()
        (gradient,) = torch.autograd.grad(objective, adversarial)
        move = step_size * gradient.sign()
        adversarial = adversarial.detach() + (move if away else -move)
        adversarial = torch.clamp(adversarial, low, high)
    return adversarial.detach() if steps else torch.clamp(adversarial, low, high)


def _check_targets(targets: Tensor, images: int) -> None:
    if targets.ndim != 3 or targets.shape[1] != images:
        raise ValueError(f"targets must be [T, {images}, D], not {list(targets.shape)}")


def in_pixels(value: float, units: str, std: Tensor) -> Bound:
    """A radius given in `units` ("pixel" or "normalized": standard deviations `std` [C, 1, 1]) in pixels."""
    return value if units == "pixel" else value * std


def _clip_range(images: Tensor, epsilon: Bound, lower: Bound, upper: Bound) -> tuple[Tensor, Tensor]:
    """The intersection of the epsilon ball and the valid range, element by element."""
    images = images.detach()
    lower = torch.as_tensor(lower, dtype=images.dtype, device=images.device)
    upper = torch.as_tensor(upper, dtype=images.dtype, device=images.device)
    return torch.maximum(images - epsilon, lower), torch.minimum(images + epsilon, upper)
