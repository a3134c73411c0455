"""Adversarial test sets: the threats that every trained model meets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from mdprop.attacks.norms import BALLS
from mdprop.attacks.pgd import best_of, pgd
from mdprop.attacks.threat import Threat
from mdprop.data.loading.datasets import BATCH_SIZE, load_images, row_batches
from mdprop.data.stores.adversarial import Attacked
from mdprop.data.stores.images import ImageStore
from mdprop.models import Embedder
from mdprop.models.embedder import embed_images
from mdprop.parallel.exchange import turns
from mdprop.runtime.memory import trimmed


class Adversary:
    """Attacks on the test images through one model, each white-box through the model as it is.

    store, transform: the clean test images, as the model meets them.
    threats: attacks by the name of their set. queries, seed: see `sample_rows`; the seed also decides
        what each image looks at and where it starts.

    What the images look at is drawn from the whole store; its clean embeddings are computed once for
    all threats.
    """

    def __init__(
        self,
        model: Embedder,
        store: ImageStore,
        transform: v2.Transform,
        threats: Mapping[str, Threat],
        queries: int,
        seed: int,
    ) -> None:
        self.model, self.store, self.transform = model.eval(), store, transform
        self.threats, self.seed = threats, seed
        self.device = model.mean.device
        self.rows = sample_rows(len(store), queries, seed)
        labels, rows = torch.from_numpy(store.labels), torch.from_numpy(self.rows)
        self._aims = {
            name: t.wants.aims(labels, rows, t.targets, torch.Generator().manual_seed(seed))
            for name, t in threats.items()
        }
        self._looked_at = torch.cat([aims.flatten() for aims in self._aims.values()]).unique()
        self._embeddings = self._embed(self._looked_at.numpy())

    def attack(self, name: str) -> Iterator[Attacked]:
        """The images of the sampled rows under one threat, a batch in memory at a time.

        With several processes, the batches of this one's turns. What an image becomes does not depend
        on how the rows are batched.
        """
        threat, aims = self.threats[name], self._aims[name]
        for places in trimmed(list(row_batches(range(len(self.rows)), BATCH_SIZE))[turns()]):
            members = self.rows[places]
            ids = self.store.ids[members]
            clean = load_images(self.store, members, self.transform).to(
                self.device, memory_format=torch.channels_last
            )
            looked_at = aims[:, places]
            targets = self._embeddings[torch.searchsorted(self._looked_at, looked_at).to(self.device)]
            images, reached = self._attempts(threat, clean, targets, ids)
            yield Attacked(
                torch.from_numpy(ids),
                torch.from_numpy(self.store.labels[members]),
                images.cpu(),
                reached.float().cpu(),
                torch.from_numpy(self.store.ids[looked_at]),
            )

    def _attempts(
        self, threat: Threat, clean: Tensor, targets: Tensor, ids: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """The best of the threat's restarts for each image, and the objective that it reaches."""
        goal, std = threat.wants, self.model.std
        epsilon, start = (threat.in_pixels(radius, std) for radius in (threat.epsilon, threat.start))
        ball = BALLS[threat.norm](clean, epsilon, 0.0, 1.0)

        def objective(images: Tensor) -> Tensor:
            return goal.objective(self.model(images), targets)

        attempts = (
            pgd(
                objective,
                clean + ball.start(_noise(clean, ids, self.seed, restart), start),
                ball,
                steps=threat.steps,
                step_size=threat.step_size(std),
            )
            for restart in range(threat.restarts)
        )
        return best_of(objective, attempts)

    def _embed(self, rows: NDArray[np.int64]) -> Tensor:
        """Clean embeddings of some rows [R, D], on the model's device."""
        batches = row_batches(rows, BATCH_SIZE)
        images = (load_images(self.store, batch, self.transform) for batch in trimmed(batches))
        return torch.cat([embed_images(self.model, batch, self.device) for batch in images])


def sample_rows(count: int, queries: int, seed: int) -> NDArray[np.int64]:
    """A seeded sample of `queries` of `count` rows, sorted; all of them where `queries` is 0 or too many."""
    if queries == 0 or queries >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, queries, replace=False))


def _noise(images: Tensor, ids: NDArray[np.int64], seed: int, restart: int) -> Tensor:
    """Uniform noise in ±1 [B, C, H, W], the same for the same seed, image and restart."""
    shape = tuple(images.shape[1:])
    keys = ([seed, int(i), restart] if restart else [seed, int(i)] for i in ids)
    noise = [np.random.default_rng(key).uniform(-1, 1, shape).astype(np.float32) for key in keys]
    return torch.from_numpy(np.stack(noise)).to(images)
