"""Images to embeddings, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.transforms import v2

from mdprop.data.adversarial import Batch
from mdprop.data.datasets import load_images, row_batches
from mdprop.data.store import ImageStore
from mdprop.errors import DataError
from mdprop.metrics import recall_at_k

BATCH_SIZE = 64


def store_batches(store: ImageStore, transform: v2.Transform) -> Iterator[Batch]:
    """All images of a store, in order, as (ids, labels, images)."""
    for rows in row_batches(range(len(store)), BATCH_SIZE):
        here = slice(rows[0], rows[-1] + 1)
        ids, labels = torch.from_numpy(store.ids[here]), torch.from_numpy(store.labels[here])
        yield ids, labels, load_images(store, rows, transform)


@torch.no_grad()
def embed_images(model: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """[B, C, H, W] in [0, 1] -> [B, D], on `device`, in the model's mode and routes."""
    embeddings: Tensor = model(images.to(device, memory_format=torch.channels_last))
    return embeddings


def extract_embeddings(model: nn.Module, batches: Iterable[Batch], out: str | Path, device: torch.device) -> None:
    """Write a Parquet file with the columns id, label (int64) and embedding (D float32).

    Memory holds one batch, whatever the number of images. The file appears when it is whole.
    """
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    model.eval()
    writer = None
    try:
        for ids, labels, images in batches:
            values = embed_images(model, images, device).float().cpu().contiguous()
            column = pa.FixedSizeListArray.from_arrays(pa.array(values.view(-1).numpy()), values.shape[1])
            batch = pa.record_batch([pa.array(ids.numpy()), pa.array(labels.numpy()), column], _NAMES)
            writer = writer or pq.ParquetWriter(partial, batch.schema)
            writer.write_batch(batch)
        if writer is None:
            raise DataError(f"{out}: there are no images to embed")
        writer.close()
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def recall_at_1(model: nn.Module, store: ImageStore, transform: v2.Transform, device: torch.device) -> float:
    """Recall@1 of a store's clean images, each against all others; the model is left in eval mode."""
    model.eval()
    parts = [embed_images(model, images, device).float().cpu() for _, _, images in store_batches(store, transform)]
    return recall_at_k(torch.cat(parts), store.labels, [1])[1]


_NAMES = ["id", "label", "embedding"]


def read_embeddings(path: str | Path) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """(ids [N], labels [N], embeddings [N, D]) of a file that `extract_embeddings` wrote."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: run the embed stage first") from None
    except (OSError, pa.ArrowInvalid):
        raise DataError(f"{path} is truncated or no Parquet file: run the embed stage again") from None
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    return table["id"].to_numpy(), table["label"].to_numpy(), flat.reshape(len(table), -1)
