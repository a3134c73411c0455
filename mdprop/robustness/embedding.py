"""Embeddings of input sets, batch by batch, on disk."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.transforms import v2

from mdprop.branches import CLEAN
from mdprop.corruptions import corrupt
from mdprop.data.loading.datasets import store_batches
from mdprop.data.stores.adversarial import read_adversarial, read_outcomes
from mdprop.data.stores.embeddings import Embeddings, write_embeddings
from mdprop.data.stores.images import Batch, ImageStore
from mdprop.models.embedder import embed_images
from mdprop.parallel.exchange import turns, write_in_order
from mdprop.parallel.parts import Parts
from mdprop.runs import ALONE, GALLERY, Run
from mdprop.runtime.memory import trimmed
from mdprop.runtime.progress import track

if TYPE_CHECKING:
    from mdprop.attacks.threat import Threat

IMAGES_ALONE = 16


def clean_stores(prepared: Path) -> dict[str, ImageStore]:
    """The clean test images in a folder that `prepare` wrote, and where there is one the gallery."""
    files = {CLEAN: prepared / "test.arrow", GALLERY: prepared / "gallery.arrow"}
    return {name: ImageStore(file) for name, file in files.items() if name == CLEAN or file.exists()}


def input_batches(
    run: Run,
    branch: str,
    stores: Mapping[str, ImageStore],
    transform: v2.Transform,
    threats: Mapping[str, Threat],
    own: slice | None = None,
) -> dict[str, Iterable[Batch]]:
    """What a run embeds through a branch, by input set: this process's turns of the batches, or `own`.

    stores: clean images by input set, `clean` among them, of which some come alone, too.
    threats: the attacks that the run meets, whose images are there already.
    """
    clean, own = stores[CLEAN], own or turns()
    some = np.unique(np.linspace(0, len(clean) - 1, IMAGES_ALONE).astype(np.int64))
    sets: dict[str, Iterable[Batch]] = {
        name: store_batches(store, transform, own) for name, store in stores.items()
    }
    sets[ALONE] = store_batches(clean, transform, own, rows=some, batch_size=1)
    return sets | {n: read_adversarial(run.attacked(branch, n, t), own) for n, t in threats.items()}


def corrupted_batches(
    run: Run,
    branch: str,
    clean: ImageStore,
    transform: v2.Transform,
    threats: Mapping[str, Threat],
    corruptions: Mapping[str, tuple[str, int]],
    seed: int,
    own: slice | None = None,
) -> dict[str, Iterable[Batch]]:
    """The images that the attacks of a run were on, corrupted, by input set: this process's turns, or `own`.

    clean: the clean images. threats: as in `input_batches`. corruptions: kind and severity by input set.
    seed: see `corrupt`.
    """
    if not corruptions:
        return {}
    name, threat = next(iter(threats.items()))
    ids = read_outcomes(run.attacked(branch, name, threat)).ids
    rows = np.flatnonzero(np.isin(clean.ids, ids))

    def batches(kind: str, severity: int) -> Iterator[Batch]:
        for ids, labels, images in store_batches(clean, transform, own or turns(), rows=rows):
            yield ids, labels, corrupt(images, ids.numpy(), kind, severity, seed)

    return {name: batches(*chosen) for name, chosen in corruptions.items()}


def extract_embeddings(
    model: nn.Module, batches: Iterable[Batch], out: str | Path, device: torch.device
) -> None:
    """Embed batches in eval mode and write them as Parquet with the columns id, label and embedding.

    Memory holds one batch, whatever the number of images. The file appears when it is whole.
    batches: with several processes, those of this process's `turns`; process 0 writes for all.
    """
    write_in_order(functools.partial(write_embeddings, out), embedded(model, batches, device))


def embedded(model: nn.Module, batches: Iterable[Batch], device: torch.device) -> Iterator[Embeddings]:
    """The embeddings of batches in eval mode, one in memory at a time."""
    model.eval()
    for ids, labels, images in trimmed(batches):
        yield ids.numpy(), labels.numpy(), embed_images(model, images, device).float().cpu().numpy()


def embed_sets(
    model: nn.Module,
    sets: Callable[[slice], Mapping[str, Iterable[Batch]]],
    files: Mapping[str, Path],
    device: torch.device,
    parts: Parts,
    description: str,
) -> None:
    """Embed the input sets that `sets` gives, of some turns of their batches, into `files`, by name."""

    def rebuild(columns: Sequence[Tensor]) -> Embeddings:
        ids, labels, values = (column.numpy() for column in columns)
        return ids, labels, values

    for name in track(parts.left({name: (file,) for name, file in files.items()}), description):
        make = functools.partial(_embedded_set, model, sets, name, device)
        parts.write((files[name],), functools.partial(write_embeddings, files[name]), make, rebuild)


def _embedded_set(
    model: nn.Module,
    sets: Callable[[slice], Mapping[str, Iterable[Batch]]],
    name: str,
    device: torch.device,
    own: slice,
) -> Iterator[Embeddings]:
    return embedded(model, sets(own)[name], device)
