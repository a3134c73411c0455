"""What each query found, on disk: Parquet with a row for each query of each input set and branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mdprop.errors import DataError
from mdprop.files import whole_file


def write_queries(path: str | Path, parts: Sequence[Mapping[str, NDArray[Any]]]) -> None:
    """Write the queries of several input sets, one below the other; the file appears when it is whole.

    Columns: set, branch, id, label; hit, rank (of the first image of the query's class, 1 the nearest,
    0: none within the depth searched), average_precision (mAP@R) and its like; of adversarial sets
    rank_all_adversarial, moved (distance from the clean embedding), objective (what the attack reached)
    and the measures of its goal. A column that a set does not have is null there.
    """
    names = list(dict.fromkeys(name for part in parts for name in part))
    kinds = {name: next(pa.array(part[name][:0]).type for part in parts if name in part) for name in names}
    schema = pa.schema([(name, kinds[name]) for name in names])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        for part in parts:
            count = len(part["id"])
            columns = [pa.array(part[n]) if n in part else pa.nulls(count, kinds[n]) for n in names]
            writer.write_table(pa.table(columns, schema=schema))


def read_queries(path: str | Path) -> pa.Table:
    """A file that `write_queries` wrote. Raises `DataError` for one that is missing or damaged."""
    try:
        return pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: run the evaluate stage first") from None
    except (OSError, pa.ArrowInvalid):
        raise DataError(f"{path} is truncated or no Parquet file: run the evaluate stage again") from None
