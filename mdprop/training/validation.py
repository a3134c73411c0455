"""How well a model in training retrieves classes that it does not train on."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.transforms import v2

from mdprop.data.loading.datasets import store_batches
from mdprop.data.stores.images import ImageStore
from mdprop.metrics import recall_at_k
from mdprop.models.embedder import embed_images
from mdprop.parallel.exchange import from_main, in_order, rank, send, turns


def recall_at_1(model: nn.Module, store: ImageStore, transform: v2.Transform, device: torch.device) -> float:
    """Recall@1 of a store's clean images, each against all others; leaves the model in eval mode.

    Several processes share the images, and get the same value.
    """
    model.eval()
    batches = store_batches(store, transform, turns())
    parts = (embed_images(model, images, device).float().cpu() for _, _, images in batches)
    if rank():
        send(parts)
        return from_main(0.0)
    return from_main(recall_at_k(torch.cat(list(in_order(parts))), store.labels, [1])[1])
