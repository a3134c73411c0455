"""What each query found, on disk: Parquet with a row for each query of each input set and branch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mdprop.errors import ResultError
from mdprop.files import sealed_file
from mdprop.seals import BLANK, BrokenSeal, verify

REMEDY = "run `dvc repro`"


def write_queries(path: str | Path, parts: Sequence[Mapping[str, NDArray[Any]]]) -> None:
    """Write the queries of several input sets, one below the other; sealed, and there when it is whole.

    Columns: set, branch, id, label; hit, rank (of the first image of the query's class, 1 the nearest,
    0: none within the depth searched), average_precision (mAP@R) and its like; of adversarial sets
    rank_all_adversarial, moved (distance from the clean embedding), objective (what the attack reached)
    and the measures of its goal. A column that a set does not have is null there.
    """
    names = list(dict.fromkeys(name for part in parts for name in part))
    kinds = {name: next(pa.array(part[name][:0]).type for part in parts if name in part) for name in names}
    schema = pa.schema([(name, kinds[name]) for name in names], {"seal": BLANK})
    with sealed_file(Path(path)) as partial, pq.ParquetWriter(partial, schema) as writer:
        for part in parts:
            count = len(part["id"])
            columns = [pa.array(part[n]) if n in part else pa.nulls(count, kinds[n]) for n in names]
            writer.write_table(pa.table(columns, schema=schema))


def read_queries(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A file that `write_queries` wrote, or these columns of it.

    Raises `ResultError` for a file that is missing, damaged, or without one of the columns.
    """
    try:
        verify(Path(path))
        with pq.ParquetFile(path) as file:
            missing = [name for name in columns or () if name not in file.schema_arrow.names]
            if missing:
                raise ResultError(
                    f"{path} has no column {missing[0]}, it is of another version: delete it and {REMEDY}"
                )
            return file.read(columns)
    except FileNotFoundError:
        raise ResultError(f"{path} not found: {REMEDY}") from None
    except BrokenSeal as error:
        raise ResultError(f"{path} {error}: delete it and {REMEDY}") from None
    except (OSError, pa.ArrowInvalid):
        raise ResultError(f"{path} is no Parquet file: delete it and {REMEDY}") from None
