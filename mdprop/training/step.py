"""One training step: attack the batch, then learn from clean and adversarial images together."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mdprop.attacks import Bound, feature_attack, target_rows
from mdprop.layers import route
from mdprop.losses import S2SDLoss
from mdprop.methods import Distribution, Method, TargetKind
from mdprop.models import Embedder
from mdprop.parallel.exchange import synchronized, widest, world_size
from mdprop.parallel.rows import attacked_share, batch_share

Precision = Literal["float32", "bfloat16"]
"""What the network computes in."""

Slices = list[tuple[Distribution, list[int]]]
"""The adversarial distributions of a batch, each with the clean rows that it is made from."""


@dataclass(frozen=True)
class TrainingAttack:
    """How training makes its examples; `epsilon` and `start_noise` in [0, 1] pixels.

    clip: "valid", to [0, 1]; "batch", the authors' rule, to the least and the greatest normalised
        value of the images that are attacked together.
    shared_forward: take targets from the pass that the first step makes anyway, of the noisy start
        instead of the clean images. One pass less; without start noise the result is the same.
    """

    targets: int
    target_kind: TargetKind
    epsilon: Bound
    steps: int
    start_noise: Bound
    clip: Literal["valid", "batch"] = "valid"
    shared_forward: bool = False

    def targets_of(self, distribution: Distribution) -> tuple[int, TargetKind]:
        """How many targets the images of a distribution aim at, and which."""
        if distribution.name == "unadversarial":
            return 1, "same_class"
        return (self.targets if distribution.name == "multi_target" else 1), self.target_kind


def training_step(
    model: Embedder,
    loss: nn.Module,
    method: Method,
    images: Tensor,
    labels: Tensor,
    attack: TrainingAttack | None,
    generator: torch.Generator,
    precision: Precision = "float32",
) -> Tensor:
    """The loss of one batch (section 3.3 of the paper), ready for `backward`.

    images [B, C, H, W] in [0, 1], on the model's device; labels [B], on the CPU, where targets are
    drawn: a GPU is not waited for. One metric loss sees clean and adversarial embeddings together,
    so that pairs between them count. Leaves the model in train mode.
    precision: "bfloat16": the network computes in it, in the attack and in training (autocast);
        weights, batch-norm statistics, pixels, embeddings and the loss stay float32.

    With several processes, images and labels are this one's `clean_rows` of the batch. The loss is
    that of the whole batch, the same in each; see `share_gradients` for what follows `backward`.
    """
    share = batch_share(method, len(images))
    routes = method.routes(method.slices(len(images)))
    if method.adversarial:
        if attack is None:
            raise ValueError(f"method '{method.name}' needs an attack")
        model.eval()
        with _computing(precision, images.device):
            attacked, attacked_labels = attack_batch(model, method, images, labels, attack, generator)
        images, labels = torch.cat([images, attacked]), torch.cat([labels, attacked_labels])
    model.train()
    labels = share.together(labels).to(images.device, non_blocking=True)
    with route(model, routes), synchronized():
        with _computing(precision, images.device):
            distills = isinstance(loss, S2SDLoss)
            outputs = model.forward_with_features(images) if distills else (model(images),)
        embeddings, *features = map(share.together, outputs)
        return loss(embeddings, labels, *features)


def _computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """One for the attack, one for training: weights that autocast caches without gradients have none."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def attack_batch(
    model: Embedder,
    method: Method,
    images: Tensor,
    labels: Tensor,
    attack: TrainingAttack,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """The adversarial slices of a batch, made in one pass: ([A, C, H, W], labels [A]).

    Each slice is attacked through its own batch-norm branch in the model's mode (eval: running
    statistics); its targets are embeddings of the same slice under the same branch. With several
    processes, a slice is what all of them attack, and this one gets its own rows of it.
    """
    share = attacked_share(method, len(images))
    slices = list(method.rows(len(images)))
    rows = torch.tensor([row for _, members in slices for row in members])
    sources, source_labels = images[rows.to(images.device)], labels[rows]
    routes = method.routes({d.name: len(members) for d, members in slices})
    lower, upper = _clip_range(model, sources, slices, attack)
    whole = list(method.rows(len(images) * world_size()))
    aims = share.of(_target_rows(share.together(source_labels), whole, attack, generator), dim=1)
    aims = aims.to(images.device, non_blocking=True)

    def targets(embeddings: Tensor) -> Tensor:
        return share.together(embeddings)[aims]

    with route(model, routes):
        if not attack.shared_forward:
            with torch.no_grad():
                embeddings = model(sources)
        attacked = feature_attack(
            model,
            sources,
            targets if attack.shared_forward else targets(embeddings),
            epsilon=attack.epsilon,
            steps=attack.steps,
            lower=lower,
            upper=upper,
            start=share.of(_noise(sources, share.count, generator)) * attack.start_noise,
        )
    return attacked, source_labels


def _clip_range(
    model: Embedder, sources: Tensor, slices: Slices, attack: TrainingAttack
) -> tuple[Bound, Bound]:
    """The range of a pixel: [0, 1], or [A, C, 1, 1] by the authors' rule, a range for each slice."""
    if attack.clip == "valid":
        return 0.0, 1.0
    parts = torch.split((sources - model.mean) / model.std, [len(members) for _, members in slices])
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


def _target_rows(
    labels: Tensor, slices: Slices, attack: TrainingAttack, generator: torch.Generator
) -> Tensor:
    """The rows of the attacked images [A] that each of them aims at, within its own slice: [T, A].

    A single target is repeated T times: the mean over targets is the same.
    """
    parts = []
    start = 0
    for distribution, members in slices:
        here = slice(start, start + len(members))
        count, kind = attack.targets_of(distribution)
        if kind == "other_class" and (labels[here] == labels[start]).all():
            kind = "any"  # classes drawn with replacement may all be one
        own = torch.arange(len(members))
        parts.append(start + target_rows(labels[here], own, count, kind, generator))
        start += len(members)
    most = max(len(part) for part in parts)
    return torch.cat([part if len(part) == most else part.expand(most, -1) for part in parts], dim=1)
