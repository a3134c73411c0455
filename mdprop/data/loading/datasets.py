"""Prepared images for PyTorch: those of some rows, and batches to train on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from mdprop.data.loading.transforms import apply_seeded, to_float
from mdprop.data.stores.arrow import ALL
from mdprop.data.stores.images import Batch, ImageStore, StoredImages

Rows = TypeVar("Rows", Sequence[int], NDArray[np.int64])

BATCH_SIZE = 64
"""Of test images."""


class TrainBatches(Protocol):
    """The batches of an epoch, such as a `DataLoader` gives them.

    Each is (images [B, C, H, W], uint8 or floats in [0, 1], and labels [B], int64, on the CPU).
    """

    @property
    def persistent_workers(self) -> bool: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Any]: ...


class TrainImages(Dataset[tuple[Tensor, int]]):
    """Augmented training images, uint8 [C, H, W], by (row, seed of the augmentation)."""

    def __init__(self, store: ImageStore, transform: v2.Transform) -> None:
        self.store = store
        self.transform = transform

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        row, seed = key
        return apply_seeded(self.transform, self.store.image(row), seed), int(self.store.labels[row])


def train_loader(
    images: TrainImages, sampler: Sampler[list[tuple[int, int]]], workers: int
) -> DataLoader[tuple[Tensor, int]]:
    """Batches of the sampler's choice, the same ones whatever the number of workers.

    Each is (images, uint8 [B, C, H, W], labels [B]): `to_float` comes after the move to the device.
    """
    return DataLoader(
        images,
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def load_images(
    store: StoredImages, rows: Sequence[int] | NDArray[np.int64], transform: v2.Transform
) -> Tensor:
    """The images of some rows: float32 [len(rows), C, H, W] in [0, 1]."""
    return to_float(torch.stack([transform(store.image(int(row))) for row in rows]))


def row_batches(rows: Rows, batch_size: int) -> Iterator[Rows]:
    """`rows` in consecutive pieces of `batch_size` or fewer."""
    for start in range(0, len(rows), batch_size):
        yield rows[start : start + batch_size]


def store_batches(
    store: StoredImages,
    transform: v2.Transform,
    turns: slice = ALL,
    *,
    rows: NDArray[np.int64] | None = None,
    batch_size: int = BATCH_SIZE,
) -> Iterator[Batch]:
    """The images of a store, or of some rows, in order, as (ids, labels, images).

    turns: which of the batches.
    """
    for here in list(row_batches(np.arange(len(store)) if rows is None else rows, batch_size))[turns]:
        ids, labels = torch.from_numpy(store.ids[here]), torch.from_numpy(store.labels[here])
        yield ids, labels, load_images(store, here, transform)
