"""What an ordinary `DataLoader` gives, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mdprop.data.loading.transforms import to_float
from mdprop.errors import DataError, disk_error

Loader = Iterable[Any]
"""Of batches (images, labels): a `torch.utils.data.DataLoader`, or a list of them."""


def batches(loader: Loader) -> Iterator[tuple[Tensor, Tensor]]:
    """The loader's batches: images [B, C, H, W], float32 in [0, 1], and labels [B], int64, on the CPU.

    Raises `DataError`, one line, for a batch of anything else, and where there is none.
    """
    number = -1
    for number, batch in enumerate(loader):
        yield _checked(batch, f"batch {number} of the loader")
    if number < 0:
        raise DataError("the loader gives no batch: its data set is empty, or drop_last drops its only one")


class HeldImages:
    """The images of a loader in a file of raw float32 pixels, to be read one at a time; a `StoredImages`.

    file: to be written. beside: images held already: one with the pixels of one of them gets its id, the
        others the numbers that follow theirs.
    labels, ids: int64 [N].

    Raises `DataError` as `batches`, and for images of several sizes; `DiskError` for a full disk.
    """

    def __init__(self, loader: Loader, file: Path, beside: HeldImages | None = None) -> None:
        self.file = file
        self.digests: dict[bytes, int] = {}
        labels: list[Tensor] = []
        ids: list[int] = []
        known, start = ({}, 0) if beside is None else (beside.digests, len(beside))
        shape: torch.Size | None = None
        try:
            with file.open("wb") as sink:
                for images, own in batches(loader):
                    shape = shape or images.shape[1:]
                    if images.shape[1:] != shape:
                        raise DataError(
                            f"the loader gives images of {_size(shape)} and of {_size(images.shape[1:])}: "
                            "to be measured together they must be of one size; resize and crop them"
                        )
                    labels.append(own)
                    for image in images.numpy():
                        pixels = np.ascontiguousarray(image).tobytes()
                        sink.write(pixels)
                        digest = hashlib.blake2b(pixels, digest_size=16).digest()
                        ids.append(known.get(digest, start + len(ids)))
                        self.digests.setdefault(digest, ids[-1])
        except OSError as error:
            raise disk_error(error, file) or error from None
        assert shape is not None  # `batches` raises where there is none
        self.labels = torch.cat(labels).numpy()
        self.ids = np.array(ids, dtype=np.int64)
        self._pixels = np.memmap(file, np.float32, "r", shape=(len(ids), *shape))

    def __len__(self) -> int:
        return len(self.labels)

    def image(self, index: int) -> Tensor:
        """One image, float32 [C, H, W] in [0, 1]."""
        return torch.from_numpy(np.array(self._pixels[index]))


def _checked(batch: Any, name: str) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        count = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise DataError(f"{name} is a {type(batch).__name__}{count}: a pair (images, labels) is needed")
    return _pixels(batch[0], name), _numbers(batch[1], len(batch[0]), name)


def _pixels(images: Any, name: str) -> Tensor:
    if not isinstance(images, Tensor):
        raise DataError(
            f"{name} has images of {type(images).__name__}: a tensor [B, C, H, W] is needed; end the "
            "transforms with v2.ToImage() and v2.ToDtype(torch.float32, scale=True)"
        )
    if images.ndim != 4 or 0 in images.shape:
        raise DataError(f"{name} has images {list(images.shape)}: [B, C, H, W] is needed")
    if not (images.is_floating_point() or images.dtype == torch.uint8):
        raise DataError(f"{name} has images of {images.dtype}: floats in [0, 1], or uint8, are needed")
    images = to_float(images.detach().cpu())
    low, high = (float(end) for end in images.aminmax())
    if not 0 <= low <= high <= 1:  # also where one is NaN
        raise DataError(
            f"{name} has pixels from {low:.3g} to {high:.3g}: they must be in [0, 1], where attacks are "
            "bounded; leave Normalize out of the transforms (the network normalises), divide levels by 255, "
            "and clamp what resizing took beyond"
        )
    return images


def _numbers(labels: Any, count: int, name: str) -> Tensor:
    try:
        found = torch.as_tensor(labels).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        found = torch.zeros(())
    if found.ndim != 1 or found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        raise DataError(
            f"{name} has labels of {_kind(labels)}: one whole number an image is needed, a tensor [B] or a "
            "list; number classes that have names, as torchvision's ImageFolder does"
        )
    if len(found) != count:
        raise DataError(f"{name} has {len(found)} labels for {count} images: each needs one")
    return found.long()


def _kind(labels: Any) -> str:
    if isinstance(labels, Tensor):
        return f"{labels.dtype} {list(labels.shape)}"
    if isinstance(labels, (tuple, list)) and labels:
        return f"{type(labels[0]).__name__}, in a {type(labels).__name__}"
    return f"{type(labels).__name__}"


def _size(shape: torch.Size) -> str:
    return " x ".join(map(str, shape))
