"""Arrow files read through a map of the file, of which memory holds a batch."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

ALL = slice(None)


class ArrowFile:
    """An Arrow IPC file; raises `OSError` for one that cannot be read and `ValueError` for another kind."""

    def __init__(self, path: str | Path) -> None:
        with Path(path).open("rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        content = pa.py_buffer(self._mapped)
        self.address = content.address
        self._reader = pa.ipc.open_file(content)
        self.schema: pa.Schema = self._reader.schema

    def batches(self, turns: slice = ALL) -> Iterator[pa.RecordBatch]:
        """The record batches, or those of `turns`: views of the file, whose pages leave memory one by one.

        A map of a file that was read counts as memory in use until the system wants it back.
        """
        for number in range(self._reader.num_record_batches)[turns]:
            yield self._reader.get_batch(number)
            if hasattr(mmap, "MADV_DONTNEED"):
                self._mapped.madvise(mmap.MADV_DONTNEED)
