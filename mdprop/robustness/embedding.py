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
from mdprop.data.stores.images import Batch, StoredImages
from mdprop.models.embedder import embed_images
from mdprop.parallel.exchange import turns, write_in_order
from mdprop.parallel.parts import Parts
from mdprop.runs import ALONE, Run
from mdprop.runtime.memory import trimmed
from mdprop.runtime.progress import Count, counting

if TYPE_CHECKING:
    from mdprop.attacks.threat import Threat

IMAGES_ALONE = 16


def input_batches(
    run: Run,
    branch: str,
    stores: Mapping[str, StoredImages],
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
    clean: StoredImages,
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


def set_sizes(
    run: Run,
    branch: str,
    stores: Mapping[str, StoredImages],
    threats: Mapping[str, Threat],
    corruptions: Iterable[str] = (),
) -> dict[str, int]:
    """How many images each input set has of `input_batches` and `corrupted_batches`."""
    sizes = {name: len(store) for name, store in stores.items()}
    sizes[ALONE] = min(IMAGES_ALONE, len(stores[CLEAN]))
    for name, threat in threats.items():
        sizes[name] = len(read_outcomes(run.attacked(branch, name, threat)).ids)
    corrupted = {name: sizes[next(iter(threats))] for name in corruptions}
    return sizes | corrupted


def extract_embeddings(
    model: nn.Module,
    batches: Iterable[Batch],
    out: str | Path,
    device: torch.device,
    count: Count | None = None,
) -> None:
    """Embed batches in eval mode and write them as Parquet with the columns id, label and embedding.

    Memory holds one batch, whatever the number of images. The file appears when it is whole.
    batches: with several processes, those of this process's `turns`; process 0 writes for all.
    count: of images.
    """
    write_in_order(functools.partial(_write, Path(out), count), embedded(model, batches, device))


def _write(out: Path, count: Count | None, batches: Iterable[Embeddings]) -> None:
    write_embeddings(out, count.each(batches, lambda batch: len(batch[0])) if count else batches)


def embedded(model: nn.Module, batches: Iterable[Batch], device: torch.device) -> Iterator[Embeddings]:
    """The embeddings of batches in eval mode, one in memory at a time."""
    model.eval()
    for ids, labels, images in trimmed(batches):
        yield ids.numpy(), labels.numpy(), embed_images(model, images, device).float().cpu().numpy()


def embed_sets(
    model: nn.Module,
    sets: Callable[[slice], Mapping[str, Iterable[Batch]]],
    files: Mapping[str, Path],
    sizes: Mapping[str, int],
    device: torch.device,
    parts: Parts,
    task: str,
) -> None:
    """Embed the input sets that `sets` gives, of some turns of their batches, into `files`, by name.

    sizes: how many images each has. task: what its progress is called.
    """

    def rebuild(columns: Sequence[Tensor]) -> Embeddings:
        ids, labels, values = (column.numpy() for column in columns)
        return ids, labels, values

    left = parts.left({name: (file,) for name, file in files.items()})
    if not left:
        return
    with counting(task, sum(sizes[name] for name in left), "images") as count:
        for name in left:
            count.at(f"set {list(files).index(name) + 1} of {len(files)}, {name}")
            make = functools.partial(_embedded_set, model, sets, name, device)
            parts.write((files[name],), functools.partial(_write, files[name], count), make, rebuild)


def _embedded_set(
    model: nn.Module,
    sets: Callable[[slice], Mapping[str, Iterable[Batch]]],
    name: str,
    device: torch.device,
    own: slice,
) -> Iterator[Embeddings]:
    return embedded(model, sets(own)[name], device)
