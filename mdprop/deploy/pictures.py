"""Image files, one or a folder of them, and their embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdprop.data.audit import some
from mdprop.data.images import ImageError, open_image
from mdprop.data.loading.datasets import BATCH_SIZE
from mdprop.data.loading.transforms import to_float
from mdprop.data.readers.entries import Entry, as_text, entries_of, images_below
from mdprop.data.readers.tree import EXTENSIONS, read_folders
from mdprop.deploy.trained import Trained
from mdprop.errors import DataError
from mdprop.models.embedder import embed_images
from mdprop.runtime.hardware import device
from mdprop.runtime.progress import track

DECODERS = min(os.cpu_count() or 1, 8)


def image_file(path: Path) -> Entry:
    """One image by its path. Raises `DataError` where there is no file."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"image {path} {what}: give the path of an image")
    return Entry("", str(path), open_image)


def images_in(folder: Path) -> list[Entry]:
    """The images in and below a folder, named by their paths in it, as the folder reader finds them.

    Raises `DataError` where there are none, and as `read_folders` does.
    """
    if not folder.is_dir():
        what = "is no folder" if folder.exists() else "does not exist"
        raise DataError(f"{folder} {what}: give a folder of images")
    root = Path(os.path.abspath(folder))
    classes = read_folders(root.parent, {"": [(as_text(root.name), root)]})[""]
    below = images_below(root)
    found = [replace(entry, name=entry.name.split("/", 1)[1], source=below) for entry in entries_of(classes)]
    if not found:
        raise DataError(f"{folder} has no images ({' '.join(EXTENSIONS)}): give another folder")
    return found


def embed_files(
    trained: Trained, entries: Sequence[Entry], doing: str
) -> tuple[list[Entry], NDArray[np.float32], list[ImageError]]:
    """The images that can be used, their embeddings [N, D] of unit norm, and why the others cannot.

    doing: what progress is shown as.
    """
    model, place = trained.load(device()), device()
    kept: list[Entry] = []
    errors: list[ImageError] = []
    batch: list[Tensor] = []
    vectors: list[NDArray[np.float32]] = []

    def flush() -> None:
        if batch:
            vectors.append(embed_images(model, to_float(torch.stack(batch)), place).float().cpu().numpy())
            batch.clear()

    pixels = track(_pixels(trained, entries), doing, len(entries), "images")
    for entry, found in zip(entries, pixels, strict=True):
        if isinstance(found, ImageError):
            errors.append(found)
            continue
        kept.append(entry)
        batch.append(found)
        if len(batch) == BATCH_SIZE:
            flush()
    flush()
    return kept, np.concatenate(vectors) if vectors else np.empty((0, 0), np.float32), errors


def refuse(errors: Sequence[ImageError], images: int, remedy: str) -> None:
    """Raise `DataError` for images that cannot be used, which names them."""
    if errors:
        found = some([f"{error.name} {error.problem}" for error in errors])
        raise DataError(f"{len(errors):,} of {images:,} images cannot be used: {found}: {remedy}")


def _pixels(trained: Trained, entries: Sequence[Entry]) -> Iterator[Tensor | ImageError]:
    def attempt(entry: Entry) -> Tensor | ImageError:
        try:
            return trained.preprocessing.pixels(entry)
        except ImageError as error:
            return error

    with ThreadPoolExecutor(DECODERS) as pool:
        for start in range(0, len(entries), BATCH_SIZE):
            yield from pool.map(attempt, entries[start : start + BATCH_SIZE])
