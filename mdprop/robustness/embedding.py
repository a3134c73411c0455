"""Embeddings of input sets, batch by batch, on disk."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn

from mdprop.data.stores.embeddings import write_embeddings
from mdprop.data.stores.images import Batch
from mdprop.models.embedder import embed_images
from mdprop.parallel.exchange import write_in_order
from mdprop.runtime.memory import trimmed


def extract_embeddings(
    model: nn.Module, batches: Iterable[Batch], out: str | Path, device: torch.device
) -> None:
    """Embed batches in eval mode and write them as Parquet with the columns id, label and embedding.

    Memory holds one batch, whatever the number of images. The file appears when it is whole.
    batches: with several processes, those of this process's `turns`; process 0 writes for all.
    """
    model.eval()
    embedded = (
        (ids.numpy(), labels.numpy(), embed_images(model, images, device).float().cpu().numpy())
        for ids, labels, images in trimmed(batches)
    )
    write_in_order(functools.partial(write_embeddings, out), embedded)
