"""Adversarial test sets: the threats that every trained model meets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from mdprop.attacks.goals import Gallery
from mdprop.attacks.noise import Keys, generators
from mdprop.attacks.norms import BALLS
from mdprop.attacks.optimizers import OPTIMIZERS, Attempt
from mdprop.attacks.pgd import GradientLog, Objective, best_of
from mdprop.attacks.threat import Threat
from mdprop.data.loading.datasets import BATCH_SIZE, load_images, row_batches
from mdprop.data.stores.adversarial import Attacked
from mdprop.data.stores.images import StoredImages
from mdprop.models import Embedder
from mdprop.models.embedder import embed_images
from mdprop.models.joint import JointEmbedder
from mdprop.models.parts import frozen
from mdprop.parallel.exchange import turns
from mdprop.robustness.sampling import Draw, drawn_rows
from mdprop.runtime.memory import trimmed


class Adversary:
    """Attacks on the test images through one model, each white-box through the model as it is.

    store, transform: the clean test images, as the model meets them.
    threats: attacks by the name of their set. queries, draw, seed: see `drawn_rows`; the seed also
        decides what each image looks at and where it starts.

    What the images look at is drawn from the whole store, which is also the gallery of goals that
    compare with one; clean embeddings are computed once for all threats.
    """

    def __init__(
        self,
        model: Embedder | JointEmbedder,
        store: StoredImages,
        transform: v2.Transform,
        threats: Mapping[str, Threat],
        queries: int,
        seed: int,
        draw: Draw = "images",
    ) -> None:
        self.model, self.store, self.transform = model.eval(), store, transform
        self.threats, self.seed = threats, seed
        self.device = model.mean.device
        self.rows = drawn_rows(store.labels, queries, seed, draw)
        self._labels = torch.from_numpy(store.labels)
        compares = any(t.wants.needs_gallery or t.wants.needs_ranking for t in threats.values())
        self._embedded = torch.arange(len(store)) if compares else torch.empty(0, dtype=torch.int64)
        self._embeddings = self._embed(self._embedded)
        rows = torch.from_numpy(self.rows)
        ranking = self._rank(max((t.wants.depth(self._labels) for t in threats.values()), default=0))
        self._aims = {
            name: t.wants.aims(self._labels, rows, t.targets, torch.Generator().manual_seed(seed), ranking)
            for name, t in threats.items()
        }
        if not compares:
            looked_at = [aims.flatten() for aims in self._aims.values()]
            self._embedded = torch.cat([rows, *looked_at]).unique()
            self._embeddings = self._embed(self._embedded)

    def attack(self, name: str, own: slice | None = None) -> Iterator[Attacked]:
        """The images of the sampled rows under one threat, a batch in memory at a time.

        own: which of the batches; None: with several processes, those of this one's turns. What an image
        becomes does not depend on how the rows are batched.
        """
        threat, aims = self.threats[name], self._aims[name]
        batches = list(row_batches(range(len(self.rows)), BATCH_SIZE))
        for places in trimmed(batches[turns() if own is None else own]):
            members, looked_at = self.rows[places], aims[:, places]
            clean = load_images(self.store, members, self.transform).to(
                self.device, memory_format=torch.channels_last
            )
            ids = self.store.ids[members]
            objective = self._objective(threat, torch.from_numpy(members), looked_at)
            log = GradientLog(clean)
            with frozen(self.model):
                restarts = range(threat.restarts)
                attempts = (self._attempt(threat, objective, clean, ids, r, log) for r in restarts)
                images, reached = best_of(objective, attempts)
            yield Attacked(
                torch.from_numpy(ids),
                self._labels[members],
                images.cpu(),
                reached.float().cpu(),
                self._moved(images, members).float().cpu(),
                self._size(threat, images - clean).float().cpu(),
                torch.maximum(-images, images - 1).flatten(1).amax(1).clamp(min=0).float().cpu(),
                torch.from_numpy(self.store.ids[looked_at]),
                log.zero.cpu(),
                log.broken.cpu(),
            )

    def _objective(self, threat: Threat, members: Tensor, looked_at: Tensor) -> Objective:
        """That of the images `members` [B], which look at the rows `looked_at` [T, B]."""
        goal, gallery = threat.wants, None
        targets = self._embeddings[torch.searchsorted(self._embedded, looked_at).to(self.device)]
        if goal.needs_gallery:
            labels = self._labels.to(self.device)
            rows, aim_rows = members.to(self.device), looked_at.to(self.device)
            gallery = Gallery(self._embeddings, labels, rows, labels[rows], aim_rows)
        return lambda images: goal.objective(self.model(images), targets, gallery)

    def _attempt(
        self,
        threat: Threat,
        objective: Objective,
        clean: Tensor,
        ids: NDArray[np.int64],
        restart: int,
        log: GradientLog,
    ) -> Tensor:
        std = self.model.std
        epsilon, start = (threat.in_pixels(radius, std) for radius in (threat.epsilon, threat.start))
        ball = BALLS[threat.norm](clean, epsilon, 0.0, 1.0)
        keys = [[self.seed, int(i), restart] if restart else [self.seed, int(i)] for i in ids]
        first = clean + ball.start(_noise(clean, keys), start)
        step_size = threat.step_size(std)
        attempt = Attempt(objective, first, ball, threat.steps, step_size, keys, log)
        return OPTIMIZERS[threat.optimizer](attempt)

    def _moved(self, images: Tensor, members: NDArray[np.int64]) -> Tensor:
        """How far the embeddings of attacked images are from the clean ones of their rows: [B]."""
        places = torch.searchsorted(self._embedded, torch.from_numpy(members)).to(self.device)
        return (embed_images(self.model, images, self.device) - self._embeddings[places]).norm(dim=1)

    def _size(self, threat: Threat, moved: Tensor) -> Tensor:
        """The norm of perturbations [B, C, H, W] as a share of the threat's epsilon: [B]."""
        if not threat.epsilon:
            return moved.flatten(1).abs().amax(1)
        shares = (moved / threat.in_pixels(threat.epsilon, self.model.std)).flatten(1)
        return shares.abs().amax(1) if threat.norm == "linf" else shares.norm(dim=1)

    def _embed(self, rows: Tensor) -> Tensor:
        """Clean embeddings of some rows [R, D], on the model's device."""
        if not len(rows):
            return torch.empty(0, device=self.device)
        batches = row_batches(rows.numpy(), BATCH_SIZE)
        images = (load_images(self.store, batch, self.transform) for batch in trimmed(batches))
        return torch.cat([embed_images(self.model, batch, self.device) for batch in images])

    def _rank(self, depth: int) -> Tensor | None:
        """The nearest rows of the sampled ones by their clean embeddings, without themselves: [Q, depth]."""
        if not depth:
            return None
        nearest = []
        for rows in row_batches(self.rows, BATCH_SIZE):
            distances = torch.cdist(self._embeddings[rows], self._embeddings)
            distances[torch.arange(len(rows)), torch.from_numpy(rows)] = torch.inf
            nearest.append(distances.topk(min(depth, len(self.store) - 1), largest=False).indices.cpu())
        return torch.cat(nearest)


def _noise(images: Tensor, keys: Keys) -> Tensor:
    """Uniform noise in ±1 [B, C, H, W], each image's by its key."""
    shape = tuple(images.shape[1:])
    noise = [rng.uniform(-1, 1, shape).astype(np.float32) for rng in generators(keys)]
    return torch.from_numpy(np.stack(noise)).to(images)
