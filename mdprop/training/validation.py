"""How well a model in training retrieves classes that it does not train on."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import nn
from torchvision.transforms import v2

from mdprop.data.loading.datasets import store_batches
from mdprop.data.stores.images import ImageStore
from mdprop.metrics import recall_at_k
from mdprop.metrics.geometry import spread
from mdprop.models.embedder import embed_images
from mdprop.parallel.exchange import from_main, in_order, rank, send, turns


class Validation(NamedTuple):
    """Recall@1, and the mean cosine distance of two images; both NaN where an embedding is not finite."""

    recall_at_1: float
    spread: float


def validate(
    model: nn.Module, store: ImageStore, transform: v2.Transform, device: torch.device
) -> Validation:
    """Of a store's clean images, each against all others; leaves the model in eval mode.

    Several processes share the images, and get the same values.
    """
    model.eval()
    batches = store_batches(store, transform, turns())
    parts = (embed_images(model, images, device).float().cpu() for _, _, images in batches)
    if rank():
        send(parts)
        return from_main(Validation(0.0, 0.0))
    embeddings = torch.cat(list(in_order(parts)))
    found = Validation(math.nan, math.nan)
    if embeddings.isfinite().all():
        found = Validation(recall_at_k(embeddings, store.labels, [1])[1], spread(embeddings))
    return from_main(found)
