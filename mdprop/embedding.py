"""Images to embeddings, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from mdprop.data.adversarial import Batch
from mdprop.data.arrow import ALL
from mdprop.data.datasets import load_images, row_batches
from mdprop.data.embeddings import write_embeddings
from mdprop.data.store import ImageStore
from mdprop.runtime import trimmed

BATCH_SIZE = 64


def store_batches(store: ImageStore, transform: v2.Transform, turns: slice = ALL) -> Iterator[Batch]:
    """All images of a store, in order, as (ids, labels, images); of the batches those of `turns`."""
    for rows in list(row_batches(range(len(store)), BATCH_SIZE))[turns]:
        here = slice(rows[0], rows[-1] + 1)
        ids, labels = torch.from_numpy(store.ids[here]), torch.from_numpy(store.labels[here])
        yield ids, labels, load_images(store, rows, transform)


@torch.no_grad()
def embed_images(model: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """[B, C, H, W] in [0, 1] -> [B, D], on `device`, in the model's mode and routes."""
    embeddings: Tensor = model(images.to(device, memory_format=torch.channels_last))
    return embeddings


def extract_embeddings(
    model: nn.Module, batches: Iterable[Batch], out: str | Path, device: torch.device
) -> None:
    """Embed batches in eval mode and write them as Parquet with the columns id, label and embedding.

    Memory holds one batch, whatever the number of images. The file appears when it is whole.
    batches: with several processes, those of this process's `turns`; process 0 writes for all.
    """
    model.eval()
    write_embeddings(
        out,
        (
            (ids.numpy(), labels.numpy(), embed_images(model, images, device).float().cpu().numpy())
            for ids, labels, images in trimmed(batches)
        ),
    )
