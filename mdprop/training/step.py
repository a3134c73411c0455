"""One training step: attack the batch, then learn from clean and adversarial images together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mdprop.attacks import Bound, choose_targets, feature_attack
from mdprop.distributions import Distribution, Method, TargetKind
from mdprop.layers import route


@dataclass(frozen=True)
class TrainingAttack:
    """How training makes its examples; `epsilon` and `start_noise` in [0, 1] pixels."""

    targets: int
    target_kind: TargetKind
    epsilon: Bound
    steps: int
    start_noise: Bound

    def targets_of(self, distribution: Distribution) -> tuple[int, TargetKind]:
        """How many targets the images of a distribution aim at, and which."""
        if distribution.name == "unadversarial":
            return 1, "same_class"
        return (self.targets if distribution.name == "multi_target" else 1), self.target_kind


def training_step(
    model: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    method: Method,
    images: Tensor,
    labels: Tensor,
    attack: TrainingAttack | None,
    generator: torch.Generator,
) -> Tensor:
    """The loss of one batch (section 3.3 of the paper), ready for `backward`.

    images [B, C, H, W] in [0, 1], labels [B]. One metric loss sees clean and adversarial
    embeddings together, so that pairs between them count. Leaves the model in train mode.
    """
    routes = method.routes(method.slices(len(images)))
    if method.adversarial:
        if attack is None:
            raise ValueError(f"method '{method.name}' needs an attack")
        model.eval()
        attacked, attacked_labels = attack_batch(model, method, images, labels, attack, generator)
        images, labels = torch.cat([images, attacked]), torch.cat([labels, attacked_labels])
    model.train()
    with route(model, routes):
        return loss(model(images), labels)


def attack_batch(
    model: nn.Module,
    method: Method,
    images: Tensor,
    labels: Tensor,
    attack: TrainingAttack,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The adversarial slices of a batch, made in one pass: ([A, C, H, W], labels [A]).

    Each slice is attacked through its own batch-norm branch in the model's mode (eval: running
    statistics); its targets are embeddings of the same slice under the same branch.
    """
    slices = list(method.rows(len(images)))
    rows = torch.tensor([row for _, members in slices for row in members], device=images.device)
    sources, source_labels = images[rows], labels[rows]
    routes = method.routes({d.name: len(members) for d, members in slices})
    with route(model, routes):
        with torch.no_grad():
            embeddings = model(sources)
        targets = _slice_targets(embeddings, source_labels, slices, attack, generator)
        noise = torch.rand(sources.shape, generator=generator).to(sources) * 2 - 1
        attacked = feature_attack(
            model,
            sources,
            targets,
            epsilon=attack.epsilon,
            steps=attack.steps,
            lower=0.0,
            upper=1.0,
            start=noise * attack.start_noise,
        )
    return attacked, source_labels


def _slice_targets(
    embeddings: Tensor,
    labels: Tensor,
    slices: list[tuple[Distribution, list[int]]],
    attack: TrainingAttack,
    generator: torch.Generator,
) -> Tensor:
    """Targets of all slices as one [T, A, D]; a single target is repeated T times (the mean is the same)."""
    parts = []
    start = 0
    for distribution, members in slices:
        here = slice(start, start + len(members))
        count, kind = attack.targets_of(distribution)
        parts.append(choose_targets(embeddings[here], labels[here], count, kind, generator))
        start += len(members)
    most = max(len(part) for part in parts)
    return torch.cat([part if len(part) == most else part.expand(most, -1, -1) for part in parts], dim=1)
