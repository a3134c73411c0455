"""The adversarial slices of a training batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mdprop.attacks.goals import Goal, get_goal
from mdprop.attacks.goals.towards import towards_any
from mdprop.attacks.norms import Bound, LinfBall
from mdprop.attacks.pgd import pgd
from mdprop.attacks.threat import Threat
from mdprop.config.attacks import AttackSettings
from mdprop.layers import route
from mdprop.methods import Slice
from mdprop.models import Embedder
from mdprop.models.parts import frozen
from mdprop.parallel.exchange import widest
from mdprop.parallel.rows import BatchRows


def make_examples(
    model: Embedder,
    images: Tensor,
    labels: Tensor,
    rows: BatchRows,
    attack: AttackSettings,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The adversarial images of a batch and their labels, made in one pass: [A, C, H, W], [A].

    Each slice is attacked through its own batch-norm branch in the model's mode (eval: running
    statistics); the images that it looks at are of the same slice, under the same branch. With several
    processes, a slice is what all of them attack, and this one gets its own rows of it.
    """
    sources, labels = images[rows.sources.to(images.device)], labels[rows.sources]
    goals = [_goal(part.settings, attack) for part in rows.parts]
    threats = [attack.threat(part.settings) for part in rows.parts]
    aims, counts = _aims(goals, threats, labels, rows, generator)
    aims = aims.to(images.device, non_blocking=True)
    noise = rows.attacked.of(_noise(sources, rows.attacked.count, generator))
    targets: Tensor | None = None

    def objective(moved: Tensor) -> Tensor:
        nonlocal targets
        embeddings = model(moved)
        if targets is None:
            targets = rows.attacked.together(embeddings.detach())[aims]
        return torch.cat(
            [
                goal.objective(embeddings[part.own], targets[:count, part.own])
                for goal, part, count in zip(goals, rows.parts, counts, strict=True)
            ]
        )

    with route(model, rows.attacked_routes), frozen(model):
        if not attack.shared_forward:
            with torch.no_grad():
                objective(sources)
        radii = [(t.epsilon, t.epsilon / t.steps, t.start) for t in threats]
        epsilon, step_size, start = (
            threats[0].in_pixels(_each(kind, rows, images), model.std) for kind in zip(*radii, strict=True)
        )
        ball = LinfBall(sources, epsilon, *_clip_range(model, sources, rows, attack))
        first = sources + ball.start(noise, start)
        return pgd(objective, first, ball, steps=attack.steps, step_size=step_size), labels


def _goal(part: Slice, attack: AttackSettings) -> Goal:
    goal = get_goal(part.goal or "")
    return towards_any(goal) if attack.rule("target_kind") == "any" else goal


def _aims(
    goals: Sequence[Goal],
    threats: Sequence[Threat],
    labels: Tensor,
    rows: BatchRows,
    generator: torch.Generator,
) -> tuple[Tensor, list[int]]:
    """The rows of the whole attacked batch that this process's images look at, each within its slice.

    Returns [T, A] with the largest T of a slice, and how many of them each slice's goal looks at.
    """
    whole = rows.attacked.together(labels)
    drawn = []
    for goal, threat, part in zip(goals, threats, rows.parts, strict=True):
        own = whole[part.whole]
        if (own == own[0]).all():  # classes drawn with replacement may all be one
            goal = towards_any(goal)
        aims = goal.aims(own, torch.arange(len(own)), threat.targets, generator)
        drawn.append(aims + part.whole.start)
    counts = [len(aims) for aims in drawn]
    padded = torch.zeros(max(counts), len(whole), dtype=torch.int64)
    for aims, part in zip(drawn, rows.parts, strict=True):
        padded[: len(aims), part.whole] = aims
    return rows.attacked.of(padded, dim=1), counts


def _each(radii: Sequence[float], rows: BatchRows, like: Tensor) -> Bound:
    """The radius of each slice for its images: a number where they are all the same, else [A, 1, 1, 1]."""
    if len(set(radii)) == 1:
        return radii[0]
    sizes = torch.tensor([part.own.stop - part.own.start for part in rows.parts])
    return torch.tensor(radii).repeat_interleave(sizes).view(-1, 1, 1, 1).to(like)


def _clip_range(
    model: Embedder, sources: Tensor, rows: BatchRows, attack: AttackSettings
) -> tuple[Bound, Bound]:
    """The range of a pixel: [0, 1], or [A, C, 1, 1] by the authors' rule, a range for each slice."""
    if attack.rule("clip") == "valid":
        return 0.0, 1.0
    parts = [(sources[part.own] - model.mean) / model.std for part in rows.parts]
    ends = widest(torch.stack([torch.stack(part.aminmax()) for part in parts]))
    ranges = [end.expand(len(part), 2) for end, part in zip(ends, parts, strict=True)]
    lower, upper = torch.cat(ranges).view(-1, 2, 1, 1, 1).unbind(1)
    return lower * model.std + model.mean, upper * model.std + model.mean


def _noise(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Uniform noise in ±1 for `count` images like `images`, on their device."""
    if images.device.type != "cpu":
        seed = int(torch.randint(2**62, (), generator=generator))
        generator = torch.Generator(images.device).manual_seed(seed)
    shape = (count, *images.shape[1:])
    return torch.rand(shape, generator=generator, device=images.device).to(images) * 2 - 1
