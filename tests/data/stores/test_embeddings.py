from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mdprop.data.stores.embeddings import Embeddings, read_embeddings, write_embeddings
from mdprop.errors import DataError, ResultError


def batches(*sizes: int, dim: int = 4) -> list[Embeddings]:
    rng = np.random.default_rng(0)
    ends = np.cumsum(sizes)
    return [
        (
            np.arange(end - size, end) + 50,
            np.arange(end - size, end) // 2,
            rng.random((size, dim), np.float32),
        )
        for size, end in zip(sizes, ends, strict=True)
    ]


def test_what_was_written_is_read_bit_by_bit(tmp_path: Path) -> None:
    written = batches(3, 4, 1)
    path = tmp_path / "new" / "clean.parquet"
    write_embeddings(path, written)
    for column, read in enumerate(read_embeddings(path)):
        expected = np.concatenate([batch[column] for batch in written])
        assert read.dtype == expected.dtype
        assert np.array_equal(read, expected)
    assert [p.name for p in path.parent.iterdir()] == ["clean.parquet"]


@pytest.mark.parametrize("dim", [1, 128])
def test_any_dimension(tmp_path: Path, dim: int) -> None:
    write_embeddings(tmp_path / "a.parquet", batches(2, 2, dim=dim))
    assert read_embeddings(tmp_path / "a.parquet")[2].shape == (4, dim)


def test_the_columns(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "a.parquet", batches(3))
    schema = pq.read_schema(tmp_path / "a.parquet")
    assert schema.names == ["id", "label", "embedding"]
    assert schema.types[:2] == [pa.int64(), pa.int64()]
    assert schema.types[2].value_type == pa.float32()
    assert schema.types[2].list_size == 4


def test_row_groups_are_large_whatever_the_batches(tmp_path: Path) -> None:
    written = batches(*[64] * 100, 1, 5000, 2)
    path = tmp_path / "a.parquet"
    write_embeddings(path, written)
    metadata = pq.read_metadata(path)
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert rows == [4096, 4096, 64 * 100 + 1 + 5000 + 2 - 2 * 4096]
    for column, read in enumerate(read_embeddings(path)):
        assert np.array_equal(read, np.concatenate([batch[column] for batch in written]))


def test_no_images_are_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(DataError, match=rf"^{path}: there are no images to embed$"):
        write_embeddings(path, [])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    def broken() -> Iterator[Embeddings]:
        yield from batches(2)
        raise RuntimeError("out of memory")

    path = tmp_path / "a.parquet"
    write_embeddings(path, batches(3))
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="out of memory"):
        write_embeddings(path, broken())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.parquet"
    with pytest.raises(DataError, match=rf"^{path} does not exist: run the embed stage first$"):
        read_embeddings(path)


@pytest.mark.parametrize("share", [0, 0.4, 0.99])
def test_a_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.parquet"
    write_embeddings(path, batches(3, 3))
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=rf"^{path} is damaged.*: run the embed stage again$"):
        read_embeddings(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    written = batches(3, 3)
    written[1][2][2, 1] = value
    with pytest.raises(ResultError, match=r"a\.parquet: embeddings are not finite, that of image 55 among"):
        write_embeddings(tmp_path / "a.parquet", written)
    assert list(tmp_path.iterdir()) == []
