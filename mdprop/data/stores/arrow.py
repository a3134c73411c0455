"""Arrow files read through a map of the file, of which memory holds a batch."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from mdprop.seals import sealed_as, verify

ALL = slice(None)


class ArrowFile:
    """An Arrow IPC file with a seal.

    seal: its digest, which names its content; checked unless `known` says that it was before.

    Raises `OSError` for one that cannot be read, `BrokenSeal` (a `ValueError`) for one that has changed
    since it was written, and `ValueError` for a file of another kind.
    """

    def __init__(self, path: str | Path, *, known: bool = False) -> None:
        self.seal = sealed_as(Path(path)) if known else verify(Path(path))
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
