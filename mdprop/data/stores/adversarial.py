"""Sets of adversarial images on disk: float32, because a small epsilon vanishes in 8 bits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from mdprop.data.stores.arrow import ALL, ArrowFile
from mdprop.data.stores.images import Batch
from mdprop.errors import DataError
from mdprop.files import whole_file
from mdprop.parallel.exchange import in_order, rank, send


def write_adversarial(path: str | Path, batches: Iterable[Batch], settings: dict[str, Any]) -> None:
    """Stream batches to an Arrow IPC file, one record batch each; the file appears when it is whole.

    Columns: id and label (int64), image (C·H·W float32). The schema's metadata holds `settings` and
    the images' shape as JSON, under "attack" and "shape".

    With several processes, each gives the batches of its `turns`, and process 0 writes the file
    that one process would.
    """
    if rank():
        return send(batches)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    with whole_file(path) as partial:
        for ids, labels, images in in_order(batches):
            pixels = pa.array(images.cpu().contiguous().view(-1).numpy())
            image = pa.FixedSizeListArray.from_arrays(pixels, images[0].numel())
            batch = pa.record_batch([pa.array(ids.numpy()), pa.array(labels.numpy()), image], _NAMES)
            if writer is None:
                metadata = {"attack": json.dumps(settings), "shape": json.dumps(list(images.shape[1:]))}
                writer = pa.ipc.new_file(str(partial), batch.schema.with_metadata(metadata))
            writer.write_batch(batch)
        if writer is None:
            raise DataError(f"{path}: there are no images to attack")
        writer.close()


def read_adversarial(path: str | Path, turns: slice = ALL) -> Iterator[Batch]:
    """The batches of a set in the order and sizes that they were written; memory holds one.

    turns: which of them.
    """
    arrow = _open(path)
    shape = json.loads(arrow.schema.metadata[b"shape"])
    for batch in arrow.batches(turns):
        ids, labels = (torch.from_numpy(np.array(batch[name])) for name in _NAMES[:2])
        pixels = np.array(batch["image"].flatten())
        yield ids, labels, torch.from_numpy(pixels).view(len(ids), *shape)


def attack_settings(path: str | Path) -> dict[str, Any]:
    """How a set was made."""
    settings: dict[str, Any] = json.loads(_open(path).schema.metadata[b"attack"])
    return settings


_NAMES = ["id", "label", "image"]


def _open(path: str | Path) -> ArrowFile:
    try:
        return ArrowFile(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: run the attack stage first") from None
    except (OSError, ValueError):
        raise DataError(f"{path} is truncated or no Arrow file: run the attack stage again") from None
