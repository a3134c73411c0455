"""Sets of adversarial images on disk: float32, because a small epsilon vanishes in 8 bits."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mdprop.data.stores.arrow import ALL, ArrowFile
from mdprop.errors import DataError
from mdprop.files import sealed_file
from mdprop.seals import BLANK, BrokenSeal, sealed_as

if TYPE_CHECKING:
    from torch import Tensor

    from mdprop.data.stores.images import Batch


class Attacked(NamedTuple):
    """A batch of adversarial images.

    ids, labels: [B] of the clean images; images: [B, C, H, W] in [0, 1].
    objective: [B], what the attack reached of what it makes small.
    moved: [B], the distance of the embedding from the clean one, as the attack computed it.
    size: [B], the measured norm of the perturbation, as a share of epsilon; 0 where epsilon is 0.
    outside: [B], how far pixels are beyond [0, 1].
    aims: [T, B], the ids of the images that each one looked at.
    zero_gradient, broken_gradient: [B], see `GradientLog`.
    """

    ids: Tensor
    labels: Tensor
    images: Tensor
    objective: Tensor
    moved: Tensor
    size: Tensor
    outside: Tensor
    aims: Tensor
    zero_gradient: Tensor
    broken_gradient: Tensor


class Outcomes(NamedTuple):
    """Of a set's images, without the images: [Q] each, aims [T, Q]; see `Attacked`."""

    ids: NDArray[np.int64]
    aims: NDArray[np.int64]
    objective: NDArray[np.float32]
    moved: NDArray[np.float32]
    size: NDArray[np.float32]
    outside: NDArray[np.float32]
    zero_gradient: NDArray[np.bool_]
    broken_gradient: NDArray[np.bool_]


def write_adversarial(path: str | Path, batches: Iterable[Attacked], settings: Mapping[str, object]) -> None:
    """Stream batches to two sealed Arrow IPC files, one record batch each; they appear when they are whole.

    `path` has the columns id, label (int64) and image (C·H·W float32); what is known of the images lies
    in `outcomes_file(path)`, so that it is read, and its seal checked, without them: id (int64),
    objective, moved, size and outside (float32), aims (a list of T int64), zero_gradient and
    broken_gradient (bool). The schemas' metadata hold `settings` and the images' shape as JSON, under
    "attack" and "shape"; that of the outcomes names the digest of the images, under "images".
    """
    path = Path(path)
    outcomes: list[pa.RecordBatch] = []
    writer = None
    with sealed_file(path) as partial:
        for part in batches:
            pixels = pa.array(part.images.contiguous().view(-1).numpy())
            images = pa.FixedSizeListArray.from_arrays(pixels, part.images[0].numel())
            ids = pa.array(part.ids.numpy())
            batch = pa.record_batch([ids, pa.array(part.labels.numpy()), images], _IMAGES)
            if writer is None:
                shape = list(part.images.shape[1:])
                metadata = {"seal": BLANK, "attack": json.dumps(settings), "shape": json.dumps(shape)}
                writer = pa.ipc.new_file(str(partial), batch.schema.with_metadata(metadata))
            writer.write_batch(batch)
            outcomes.append(pa.record_batch([ids, *_outcome_columns(part)], _OUTCOMES))
        if writer is None:
            raise DataError(f"{path}: there are no images to attack")
        writer.close()
    metadata |= {"images": sealed_as(path)}
    schema = outcomes[0].schema.with_metadata(metadata)
    with sealed_file(outcomes_file(path)) as partial, pa.ipc.new_file(str(partial), schema) as writer:
        for batch in outcomes:
            writer.write_batch(batch)


def outcomes_file(path: Path) -> Path:
    """Where what is known of the images in `path` is."""
    return path.with_suffix(".outcomes.arrow")


def _outcome_columns(part: Attacked) -> list[pa.Array]:
    """Those of `_OUTCOMES` but for the ids."""
    return [
        *(pa.array(values.numpy()) for values in (part.objective, part.moved, part.size, part.outside)),
        pa.array(list(part.aims.T.contiguous().numpy()), pa.list_(pa.int64())),
        pa.array(part.zero_gradient.numpy()),
        pa.array(part.broken_gradient.numpy()),
    ]


def read_adversarial(path: str | Path, turns: slice = ALL) -> Iterator[Batch]:
    """The batches of a set in the order and sizes that they were written; memory holds one.

    turns: which of them.
    """
    import torch

    arrow = _open(Path(path), _IMAGES)
    shape = json.loads(arrow.schema.metadata[b"shape"])
    for batch in arrow.batches(turns):
        ids, labels = (torch.from_numpy(np.array(batch[name])) for name in _IMAGES[:2])
        pixels = np.array(batch["image"].flatten())
        yield ids, labels, torch.from_numpy(pixels).view(len(ids), *shape)


def read_pictures(path: str | Path, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """The images with these ids of a set, in their order: [len(ids), C, H, W]; memory holds no others."""
    arrow = _open(Path(path), _IMAGES)
    shape = json.loads(arrow.schema.metadata[b"shape"])
    found: dict[int, NDArray[np.float32]] = {}
    for batch in arrow.batches():
        there = batch["id"].to_numpy()
        for row in np.flatnonzero(np.isin(there, ids)):
            pixels = batch["image"].slice(row, 1).flatten()
            found[int(there[row])] = np.array(pixels).reshape(shape)
    return np.stack([found[int(wanted)] for wanted in ids])


def read_outcomes(path: str | Path) -> Outcomes:
    """How far the images in `path` got; the images themselves are not read."""
    batches = list(_open_outcomes(path).batches())
    aims = np.concatenate([np.array(b["aims"].flatten()) for b in batches])
    ids, *values = (
        np.concatenate([b[name].to_numpy(zero_copy_only=False) for b in batches])
        for name in ("id", *Outcomes._fields[2:])
    )
    return Outcomes(ids, aims.reshape(len(ids), len(aims) // len(ids)).T, *values)


def image_components(path: str | Path) -> int:
    """How many numbers an image of a set has: C·H·W."""
    return math.prod(json.loads(_open_outcomes(path).schema.metadata[b"shape"]))


def attack_settings(path: str | Path) -> dict[str, object]:
    """How a set was made."""
    settings: dict[str, object] = json.loads(_open_outcomes(path).schema.metadata[b"attack"])
    return settings


_IMAGES = ["id", "label", "image"]
_OUTCOMES = ["id", "objective", "moved", "size", "outside", "aims", "zero_gradient", "broken_gradient"]


def _open_outcomes(path: str | Path) -> ArrowFile:
    arrow = _open(outcomes_file(Path(path)), _OUTCOMES)
    if arrow.schema.metadata[b"images"].decode() != _named(Path(path)):
        raise DataError(f"{path} and {outcomes_file(Path(path))} are of two attacks: {_AGAIN}")
    return arrow


def _named(path: Path) -> str:
    with _errors_of(path):
        return sealed_as(path)


def _open(path: Path, columns: Sequence[str]) -> ArrowFile:
    with _errors_of(path):
        arrow = ArrowFile(path)
    if arrow.schema.names != columns:
        raise DataError(f"{path} was made by another version of mdprop: {_AGAIN}")
    return arrow


_AGAIN = "run the attack stage again"


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: run the attack stage first") from None
    except BrokenSeal as error:
        raise DataError(f"{path} {error}: {_AGAIN}") from None
    except (OSError, ValueError):
        raise DataError(f"{path} is no Arrow file: {_AGAIN}") from None
