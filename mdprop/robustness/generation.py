"""Adversarial test sets: the threat that every trained model meets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms import v2

from mdprop.attacks import Bound, feature_attack, target_rows
from mdprop.data.loading.datasets import BATCH_SIZE, load_images, row_batches
from mdprop.data.stores.images import Batch
from mdprop.data.stores.arrow import ALL
from mdprop.data.stores.images import ImageStore
from mdprop.methods import Goal, TargetKind
from mdprop.models.embedder import embed_images
from mdprop.runtime.memory import trimmed


@dataclass(frozen=True)
class Threat:
    """An attack on the test images.

    goal: single_target   towards one image of another class,
          multi_target    towards `targets` images of other classes at once,
          unadversarial   towards another image of the same class,
          untargeted      away from the image's own clean embedding.
    epsilon: radius of the L-infinity ball in [0, 1] pixels, a number or [C, 1, 1].
    step_ratio: size of a step, as a share of epsilon.
    """

    goal: Goal
    epsilon: Bound
    steps: int
    step_ratio: float
    targets: int


def sample_rows(count: int, queries: int, seed: int) -> NDArray[np.int64]:
    """A seeded sample of `queries` of `count` rows, sorted; all of them where `queries` is 0 or too many."""
    if queries == 0 or queries >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, queries, replace=False))


def generate_set(
    model: nn.Module,
    store: ImageStore,
    rows: NDArray[np.int64],
    transform: v2.Transform,
    threat: Threat,
    seed: int,
    device: torch.device,
    turns: slice = ALL,
) -> Iterator[Batch]:
    """Attack the images of `rows`: batches of (ids, labels, images), one in memory at a time.

    White-box through the branch that the model is deployed with (clean, in eval mode): iterative,
    from a random start in the ball. Targets are clean embeddings of images drawn from the whole
    store. Targets and starts depend on `seed` and the image, not on how the rows are batched.
    turns: which of the batches.
    """
    model.eval()
    aims = _targets(torch.from_numpy(store.labels), torch.from_numpy(rows), threat, seed)
    for places in trimmed(list(row_batches(range(len(rows)), BATCH_SIZE))[turns]):
        members = rows[places]
        images = load_images(store, members, transform).to(device, memory_format=torch.channels_last)
        aimed_at = [load_images(store, aim, transform) for aim in aims[:, places].tolist()]
        targets = torch.stack([embed_images(model, aim, device) for aim in aimed_at])
        adversarial = feature_attack(
            model,
            images,
            targets,
            epsilon=threat.epsilon,
            steps=threat.steps,
            step_size=threat.epsilon * threat.step_ratio,
            lower=0.0,
            upper=1.0,
            start=_noise(images, store.ids[members], seed) * threat.epsilon,
            away=threat.goal == "untargeted",
        )
        yield torch.from_numpy(store.ids[members]), torch.from_numpy(store.labels[members]), adversarial.cpu()


def _targets(labels: Tensor, rows: Tensor, threat: Threat, seed: int) -> Tensor:
    """The rows that each image aims at (or flees from): [T, Q]."""
    if threat.goal == "untargeted":
        return rows[None]
    kind: TargetKind = "same_class" if threat.goal == "unadversarial" else "other_class"
    count = threat.targets if threat.goal == "multi_target" else 1
    return target_rows(labels, rows, count, kind, torch.Generator().manual_seed(seed))


def _noise(images: Tensor, ids: NDArray[np.int64], seed: int) -> Tensor:
    """Uniform noise in ±1 [B, C, H, W], the same for the same image and seed."""
    shape = tuple(images.shape[1:])
    noise = [np.random.default_rng([seed, int(i)]).uniform(-1, 1, shape).astype(np.float32) for i in ids]
    return torch.from_numpy(np.stack(noise)).to(images)
