"""Sets of adversarial images on disk: float32, because a small epsilon vanishes in 8 bits."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mdprop.data.stores.arrow import ALL, ArrowFile
from mdprop.errors import DataError
from mdprop.files import whole_file

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
    """Stream batches to an Arrow IPC file, one record batch each; the file appears when it is whole.

    Columns: id and label (int64), image (C·H·W float32), objective, moved, size and outside (float32),
    aims (a list of T int64), zero_gradient and broken_gradient (bool). The schema's metadata holds
    `settings` and the images' shape as JSON, under "attack" and "shape".
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    with whole_file(path) as partial:
        for part in batches:
            columns = [
                pa.array(part.ids.numpy()),
                pa.array(part.labels.numpy()),
                pa.FixedSizeListArray.from_arrays(
                    pa.array(part.images.contiguous().view(-1).numpy()), part.images[0].numel()
                ),
                *(
                    pa.array(values.numpy())
                    for values in (part.objective, part.moved, part.size, part.outside)
                ),
                pa.array(list(part.aims.T.contiguous().numpy()), pa.list_(pa.int64())),
                pa.array(part.zero_gradient.numpy()),
                pa.array(part.broken_gradient.numpy()),
            ]
            batch = pa.record_batch(columns, _NAMES)
            if writer is None:
                shape = list(part.images.shape[1:])
                metadata = {"attack": json.dumps(settings), "shape": json.dumps(shape)}
                writer = pa.ipc.new_file(str(partial), batch.schema.with_metadata(metadata))
            writer.write_batch(batch)
        if writer is None:
            raise DataError(f"{path}: there are no images to attack")
        writer.close()


def read_adversarial(path: str | Path, turns: slice = ALL) -> Iterator[Batch]:
    """The batches of a set in the order and sizes that they were written; memory holds one.

    turns: which of them.
    """
    import torch

    arrow = _open(path)
    shape = json.loads(arrow.schema.metadata[b"shape"])
    for batch in arrow.batches(turns):
        ids, labels = (torch.from_numpy(np.array(batch[name])) for name in _NAMES[:2])
        pixels = np.array(batch["image"].flatten())
        yield ids, labels, torch.from_numpy(pixels).view(len(ids), *shape)


def read_outcomes(path: str | Path) -> Outcomes:
    """How far a set's images got; the images themselves are not read."""
    batches = list(_open(path).batches())
    aims = np.concatenate([np.array(b["aims"].flatten()) for b in batches])
    ids, *values = (
        np.concatenate([b[name].to_numpy(zero_copy_only=False) for b in batches])
        for name in ("id", *Outcomes._fields[2:])
    )
    return Outcomes(ids, aims.reshape(len(ids), len(aims) // len(ids)).T, *values)


def image_components(path: str | Path) -> int:
    """How many numbers an image of a set has: C·H·W."""
    return math.prod(json.loads(_open(path).schema.metadata[b"shape"]))


def attack_settings(path: str | Path) -> dict[str, object]:
    """How a set was made."""
    settings: dict[str, object] = json.loads(_open(path).schema.metadata[b"attack"])
    return settings


_NAMES = [
    "id",
    "label",
    "image",
    "objective",
    "moved",
    "size",
    "outside",
    "aims",
    "zero_gradient",
    "broken_gradient",
]


def _open(path: str | Path) -> ArrowFile:
    try:
        arrow = ArrowFile(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: run the attack stage first") from None
    except (OSError, ValueError):
        raise DataError(f"{path} is truncated or no Arrow file: run the attack stage again") from None
    if arrow.schema.names != _NAMES:
        raise DataError(f"{path} was made by another version of mdprop: run the attack stage again")
    return arrow
