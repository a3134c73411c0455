"""The adversarial slices of a training batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mdprop.attacks.goals import Goal, get_goal
from mdprop.attacks.goals.nearness import ranking_among
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
from mdprop.parallel.rows import BatchRows, Part

Aims = Callable[[Tensor], Tensor]
"""What a process's images of a slice look at, by the embeddings of the whole slice: [N, D] -> rows [T, A]."""


def make_examples(
    model: Embedder,
    images: Tensor,
    labels: Tensor,
    rows: BatchRows,
    attack: AttackSettings,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The adversarial images of a batch and their labels, made in one pass: [A, C, H, W], [A].

    Each slice is attacked through its `attacked_branch` in the model's mode (eval: running statistics);
    the images that it looks at are of the same slice, under the same branch. With several processes, a
    slice is what all of them attack, and this one gets its own rows of it.
    """
    sources, labels = images[rows.sources.to(images.device)], labels[rows.sources]
    goals = [_goal(part.settings, attack) for part in rows.parts]
    threats = [attack.threat(part.settings) for part in rows.parts]
    whole = rows.attacked.together(labels)
    aims = [
        _aims(goal, threat, part, whole[part.whole], generator, images.device)
        for goal, threat, part in zip(goals, threats, rows.parts, strict=True)
    ]
    noise = rows.attacked.of(_noise(sources, rows.attacked.count, generator))
    targets: list[Tensor] = []

    def objective(moved: Tensor) -> Tensor:
        embeddings = model(moved)
        if not targets:
            everyone = rows.attacked.together(embeddings.detach())
            slices = [everyone[part.whole] for part in rows.parts]
            targets.extend(own[aim(own)] for own, aim in zip(slices, aims, strict=True))
        return torch.cat(
            [
                goal.objective(embeddings[part.own], looked_at)
                for goal, part, looked_at in zip(goals, rows.parts, targets, strict=True)
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
        attacked = pgd(objective, first, ball, steps=attack.steps, step_size=step_size)
    return rows.in_batch_order(attacked), rows.in_batch_order(labels)


def _goal(part: Slice, attack: AttackSettings) -> Goal:
    goal = get_goal(part.goal or "")
    return towards_any(goal) if attack.rule("target_kind") == "any" else goal


def _aims(
    goal: Goal, threat: Threat, part: Part, labels: Tensor, generator: torch.Generator, device: torch.device
) -> Aims:
    """Drawn now, on the CPU, or looked for later, on the device, where the goal needs a ranking.

    labels: [N], of the whole slice. Where all are of one class, as classes drawn with replacement may
    be, the images look at others of that class.
    """
    if goal.needs_ranking:
        places = part.places.to(device, non_blocking=True)
        classes = labels.to(device, non_blocking=True)
        return lambda embeddings: goal.aims(
            classes, places, threat.targets, generator, ranking_among(embeddings, places)
        )
    if (labels == labels[0]).all():
        goal = towards_any(goal)
    drawn = goal.aims(labels, torch.arange(len(labels)), threat.targets, generator)
    own = drawn[:, part.places].to(device, non_blocking=True)
    return lambda embeddings: own


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
