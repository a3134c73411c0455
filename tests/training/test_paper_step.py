"""One step at the paper's size, with each preset's loss, against a plain re-statement of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdprop.config.attacks import AttackSettings
from mdprop.layers import extract_branch, route
from mdprop.losses import build_loss
from mdprop.methods import METHODS
from mdprop.models import Embedder, build_model
from mdprop.parallel.rows import batch_rows
from mdprop.presets import read_presets
from mdprop.training import make_examples, training_step
from tests.helpers import attack_settings

pytestmark = pytest.mark.slow

PRESETS = read_presets()
BATCH, SIZE, CLASSES = 16, 224, 100
HALF = BATCH // 2
METHOD = METHODS["mdprop"]
LABELS = torch.arange(BATCH // 2).repeat_interleave(2)
ALL_LABELS = LABELS.repeat(2)
ROUTES = {"clean": BATCH, "single_target": HALF, "multi_target": HALF}
SEED = 3


@dataclass
class Step:
    """A network with three different branches, a batch, and what the plain statement makes of it."""

    model: Embedder
    images: Tensor
    attack: AttackSettings
    attacked: Tensor
    gradient: Tensor
    embeddings: Tensor
    features: Tensor


@pytest.fixture(scope="module")
def step() -> Step:
    settings = PRESETS["cub200_multisimilarity"]
    torch.manual_seed(0)
    model = build_model(settings["model.backbone"], settings["model.embedding_dim"], branches=METHOD.branches)
    images = torch.rand(BATCH, 3, SIZE, SIZE)
    # Statistics as of a network in training, of its own in each branch.
    with torch.no_grad(), route(model.train(), {"clean": 8, "single_target": 4, "multi_target": 4}):
        model(images)
    model.eval()
    epsilon, noise = settings["attack.epsilon"], settings["attack.start_noise"]
    attack = attack_settings(
        targets=settings["attack.targets"],
        epsilon=epsilon,
        steps=settings["attack.steps"],
        start_noise=noise,
        compatibility="authors",
    )
    normalized = (images - model.mean) / model.std
    networks = [extract_branch(model.network, branch) for branch in METHOD.branches]
    attacked, gradient = plain_attack(networks[1:], normalized, epsilon, noise, settings["attack.targets"])
    batches = [normalized, attacked[:HALF], attacked[HALF:]]
    with torch.no_grad():
        embeddings = torch.cat([F.normalize(n(x)) for n, x in zip(networks, batches, strict=True)])
        features = torch.cat([last_map(n, x) for n, x in zip(networks, batches, strict=True)])
    return Step(model, images, attack, attacked * model.std + model.mean, gradient, embeddings, features)


def plain_attack(
    networks: list[nn.Module], images: Tensor, epsilon: float, noise: float, targets: int
) -> tuple[Tensor, Tensor]:
    """Steps 2 and 3 of the authors' step, in normalised units, one half of the batch after the other.

    Returns the adversarial images, and the gradients whose signs they followed.
    """
    generator = torch.Generator().manual_seed(SEED)
    halves = images.split(HALF)
    aims = []
    for network, x, count in zip(networks, halves, (1, targets), strict=True):
        with torch.no_grad():
            clean = F.normalize(network(x))
        aims.append([clean[torch.randperm(HALF, generator=generator)] for _ in range(count)])
    starts = (noise * (2 * torch.rand(images.shape, generator=generator) - 1)).split(HALF)
    attacked, gradients = [], []
    for network, x, aim, start in zip(networks, halves, aims, starts, strict=True):
        adversarial = (x + start).requires_grad_(True)
        embeddings = F.normalize(network(adversarial))
        distance = sum((embeddings - target).norm(dim=1).mean() for target in aim) / len(aim)
        (gradient,) = torch.autograd.grad(distance**2, adversarial)
        gradients.append(gradient)
        moved = adversarial.detach() - epsilon * gradient.sign()
        moved = torch.minimum(torch.maximum(moved, x - epsilon), x + epsilon)
        attacked.append(moved.clamp(x.min(), x.max()))
    return torch.cat(attacked), torch.cat(gradients)


def last_map(network: nn.Module, x: Tensor) -> Tensor:
    """[B, 2048, 7, 7] of a torchvision ResNet-50."""
    x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
    return network.layer4(network.layer3(network.layer2(network.layer1(x))))


def multi_similarity(embeddings: Tensor, labels: Tensor) -> Tensor:
    """Anchor by anchor, as the authors compute it."""
    similarity = embeddings @ embeddings.T
    terms = []
    for i, row in enumerate(similarity):
        same = labels == labels[i]
        others = torch.arange(len(labels)) != i
        positive, negative = row[same & others], row[~same]
        hard_positive = positive[positive - 0.1 < negative.max()]
        hard_negative = negative[negative + 0.1 > positive.min()]
        if len(hard_positive) and len(hard_negative):
            pull = torch.log(1 + torch.exp(-2 * (hard_positive - 0.5)).sum()) / 2
            push = torch.log(1 + torch.exp(40 * (hard_negative - 0.5)).sum()) / 40
            terms.append(pull + push)
    return torch.stack(terms).mean()


def arcface(loss: nn.Module, embeddings: Tensor, labels: Tensor) -> Tensor:
    (centres,) = loss.parameters()
    centres = centres if centres.shape[1] == embeddings.shape[1] else centres.T
    angles = torch.acos(F.normalize(embeddings) @ F.normalize(centres).T)
    angles[torch.arange(len(labels)), labels] += 0.5
    return F.cross_entropy(16 * torch.cos(angles), labels)


def s2sd(loss: nn.Module, embeddings: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    """Before the delay of the feature distillation."""
    pooled = features.mean((2, 3)) + features.amax((2, 3))
    rows = torch.log_softmax(embeddings @ embeddings.T, dim=1)
    losses, divergences = [], []
    for net in loss.target_nets:
        target = F.normalize(net[2](torch.relu(net[0](pooled))))
        losses.append(multi_similarity(target, labels))
        soft = torch.softmax((target @ target.T).detach(), dim=1)
        divergences.append((soft * (soft.log() - rows)).sum(1).mean())
    total = (multi_similarity(embeddings, labels) + sum(losses) / len(losses)) / 2
    return total + 50 * sum(divergences) / len(divergences)


Restated = Callable[[nn.Module, Step], Tensor]
LOSSES: dict[str, Restated] = {
    "cub200_multisimilarity": lambda loss, s: multi_similarity(s.embeddings, ALL_LABELS),
    "cub200_arcface": lambda loss, s: arcface(loss, s.embeddings, ALL_LABELS),
    "cub200_s2sd": lambda loss, s: s2sd(loss, s.embeddings, ALL_LABELS, s.features),
}


def preset_loss(preset: str, model: Embedder) -> nn.Module:
    settings = PRESETS[preset]
    options: dict[str, Any] = dict(settings["loss.options"])
    torch.manual_seed(1)
    return build_loss(
        settings["loss.name"],
        options,
        embedding_dim=settings["model.embedding_dim"],
        num_classes=CLASSES,
        feature_dim=model.feature_dim,
    )


def test_every_loss_of_the_presets_is_here() -> None:
    names = {settings["loss.name"] for settings in PRESETS.values() if "loss.name" in settings}
    assert names == {PRESETS[preset]["loss.name"] for preset in LOSSES}


def test_the_adversarial_images_are_those_of_the_plain_statement(step: Step) -> None:
    generator = torch.Generator().manual_seed(SEED)
    rows = batch_rows(METHOD, BATCH)
    attacked, labels = make_examples(step.model.eval(), step.images, LABELS, rows, step.attack, generator)
    assert torch.equal(labels, LABELS)
    difference = ((attacked - step.attacked) / step.model.std).abs()
    different = difference > 1e-5
    # Where the gradient is of the size of its rounding, its sign is chance.
    assert different.float().mean() < 0.005
    size = step.gradient.abs() / step.gradient.abs().mean((1, 2, 3), keepdim=True)
    assert size[different].max() < 0.2
    moved = ((attacked - step.images) / step.model.std).abs()
    assert math.isclose(float(moved.max()), 0.01, rel_tol=1e-4)


@pytest.mark.parametrize("preset", LOSSES)
def test_the_loss_in_eval_mode_is_that_of_the_plain_statement(step: Step, preset: str) -> None:
    loss = preset_loss(preset, step.model).eval()
    expected = LOSSES[preset](loss, step)
    with torch.no_grad(), route(step.model.eval(), ROUTES):
        batch = torch.cat([step.images, step.attacked])
        embeddings, features = step.model.forward_with_features(batch)
        extra = (features,) if preset.endswith("s2sd") else ()
        value = loss(embeddings, ALL_LABELS, *extra)
    torch.testing.assert_close(features, step.features, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("preset", LOSSES)
def test_a_training_step_moves_every_weight(step: Step, preset: str) -> None:
    loss = preset_loss(preset, step.model)
    step.model.zero_grad()
    generator = torch.Generator().manual_seed(SEED)
    value = training_step(step.model, loss, METHOD, step.images, LABELS, step.attack, generator)
    value.backward()
    assert torch.isfinite(value)
    for name, parameter in [*step.model.named_parameters(), *loss.named_parameters()]:
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
    assert sum(p.grad.abs().sum() for p in step.model.parameters() if p.grad is not None) > 0
