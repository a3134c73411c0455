"""Embeddings on disk: Parquet with the columns id, label (int64) and embedding (D float32)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mdprop.errors import DataError, ResultError
from mdprop.files import sealed_file
from mdprop.seals import BLANK, BrokenSeal, verify

Embeddings = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""(ids [N], labels [N], embeddings [N, D])"""

ROWS = 4096
"""Of a row group; small ones are slow to read."""

_NAMES = ["id", "label", "embedding"]


def write_embeddings(path: str | Path, batches: Iterable[Embeddings]) -> None:
    """Stream batches to a sealed Parquet file, which appears when it is whole.

    Raises `ResultError` for embeddings that are not finite.
    """
    path = Path(path)
    writer = None
    with sealed_file(path) as partial:
        for ids, labels, values in _row_groups(batches):
            broken = ids[~np.isfinite(values).all(axis=1)]
            if len(broken):
                raise ResultError(
                    f"{path}: embeddings are not finite, that of image {broken[0]} among them: the model's "
                    "training diverged; train again with a lower train.learning_rate"
                )
            column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
            batch = pa.record_batch(
                [pa.array(ids), pa.array(labels), column], _NAMES, metadata={"seal": BLANK}
            )
            # Values do not repeat: dictionaries of them would take time, and 1.4 times the room.
            writer = writer or pq.ParquetWriter(partial, batch.schema, use_dictionary=False)
            writer.write_batch(batch)
        if writer is None:
            raise DataError(f"{path}: there are no images to embed")
        writer.close()


def _row_groups(batches: Iterable[Embeddings]) -> Iterator[Embeddings]:
    """The same rows, `ROWS` at a time; each group is valid until the next.

    They are gathered in memory of their own: batches that were kept would break the heap into pieces.
    """
    group: list[NDArray[Any]] = []
    filled = 0
    for batch in batches:
        columns: list[NDArray[Any]] = list(batch)
        group = group or [np.empty((ROWS, *column.shape[1:]), column.dtype) for column in columns]
        taken = 0
        while taken < len(columns[0]):
            count = min(ROWS - filled, len(columns[0]) - taken)
            for rows, column in zip(group, columns, strict=True):
                rows[filled : filled + count] = column[taken : taken + count]
            taken, filled = taken + count, filled + count
            if filled == ROWS:
                yield group[0], group[1], group[2]
                filled = 0
    if filled:
        yield group[0][:filled], group[1][:filled], group[2][:filled]


def read_embeddings(path: str | Path) -> Embeddings:
    """A file that `write_embeddings` wrote. Raises `DataError` for one that is missing or damaged."""
    try:
        verify(Path(path))
        table = pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: run the embed stage first") from None
    except BrokenSeal as error:
        raise DataError(f"{path} {error}: run the embed stage again") from None
    except (OSError, pa.ArrowInvalid):
        raise DataError(f"{path} is no Parquet file: run the embed stage again") from None
    if table.schema.names != _NAMES:
        raise DataError(f"{path} was made by another version of mdprop: run the embed stage again")
    flat = table["embedding"].combine_chunks().flatten().to_numpy()
    return table["id"].to_numpy(), table["label"].to_numpy(), flat.reshape(len(table), -1)
