"""The file of what each query found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdprop.data.stores.queries import read_queries, write_queries
from mdprop.errors import ResultError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Two sets, of which one has no column `hit`."""
    clean = {"set": np.full(2, "clean"), "id": np.arange(2), "hit": np.array([True, False])}
    moved = {"set": np.full(1, "moved"), "id": np.arange(1), "approach": np.array([0.5])}
    write_queries(tmp_path / "at" / "queries.parquet", [clean, moved])
    return tmp_path / "at" / "queries.parquet"


def test_what_was_written_is_read_with_nulls_where_a_set_lacks_a_column(path: Path) -> None:
    assert read_queries(path).to_pydict() == {
        "set": ["clean", "clean", "moved"],
        "id": [0, 1, 0],
        "hit": [True, False, None],
        "approach": [None, None, 0.5],
    }


def test_only_the_columns_that_are_asked_for_are_read(path: Path) -> None:
    assert read_queries(path, ["id", "set"]).to_pydict() == {
        "id": [0, 1, 0],
        "set": ["clean", "clean", "moved"],
    }


def test_files_that_are_missing_of_another_version_or_damaged(path: Path) -> None:
    with pytest.raises(ResultError, match=r"absent\.parquet not found: run `dvc repro`"):
        read_queries(path.with_name("absent.parquet"))
    with pytest.raises(ResultError, match="no column label, it is of another version: delete it and run"):
        read_queries(path, ["id", "label"])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ResultError, match=r"queries\.parquet is damaged.*: delete it and run `dvc repro`"):
        read_queries(path)
