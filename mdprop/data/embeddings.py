"""Embeddings on disk: Parquet with the columns id, label (int64) and embedding (D float32)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mdprop.distributed import in_order, rank, send
from mdprop.errors import DataError
from mdprop.files import whole_file

Embeddings = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""(ids [N], labels [N], embeddings [N, D])"""

_NAMES = ["id", "label", "embedding"]


def write_embeddings(path: str | Path, batches: Iterable[Embeddings]) -> None:
    """Stream batches to a Parquet file, which appears when it is whole.

    With several processes, each gives the batches of its `turns`, and process 0 writes the file
    that one process would.
    """
    if rank():
        return send(batches)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = None
    with whole_file(path) as partial:
        for ids, labels, values in in_order(batches):
            column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
            batch = pa.record_batch([pa.array(ids), pa.array(labels), column], _NAMES)
            writer = writer or pq.ParquetWriter(partial, batch.schema)
            writer.write_batch(batch)
        if writer is None:
            raise DataError(f"{path}: there are no images to embed")
        writer.close()


def read_embeddings(path: str | Path) -> Embeddings:
    """A file that `write_embeddings` wrote. Raises `DataError` for one that is missing or damaged."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: run the embed stage first") from None
    except (OSError, pa.ArrowInvalid):
        raise DataError(f"{path} is truncated or no Parquet file: run the embed stage again") from None
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    return table["id"].to_numpy(), table["label"].to_numpy(), flat.reshape(len(table), -1)
