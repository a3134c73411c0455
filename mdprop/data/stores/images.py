"""Prepared images in one Arrow file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mdprop.data.images import decode
from mdprop.data.stores.arrow import ArrowFile
from mdprop.errors import DataError
from mdprop.files import read_sealed_json, sealed_file
from mdprop.seals import BLANK, BrokenSeal

if TYPE_CHECKING:
    from torch import Tensor

Batch = tuple["Tensor", "Tensor", "Tensor"]
"""(ids [B], labels [B], images [B, C, H, W] in [0, 1])"""


class StoredImages(Protocol):
    """What attacks and embedding ask of clean images: one at a time, by their row.

    file: where they are. labels, ids: int64 [N].
    """

    file: Path
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]

    def __len__(self) -> int: ...

    def image(self, index: int) -> Tensor:
        """One image: uint8 [C, H, W], or floats in [0, 1]."""


SCHEMA = pa.schema(
    [
        pa.field("image", pa.large_binary(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("id", pa.int64(), nullable=False),
    ]
)
_REMEDY = "run dvc repro prepare"
BATCH_BYTES = 2**20
BATCH_ROWS = 1000


@dataclass(frozen=True)
class Row:
    """One image of a store: bytes for `decode`, label and id (both unique over the data set)."""

    image: bytes
    label: int
    class_name: str
    path: str
    id: int


def write_store(path: str | Path, rows: Iterable[Row], mode: str) -> None:
    """Stream rows to a sealed Arrow IPC file with the columns of `SCHEMA`; memory holds one batch of them.

    mode: that of the images, "L" or "RGB"; kept in the schema's metadata.
    The file gets its name when it is whole. The same rows give the same bytes.
    """
    path = Path(path)
    schema = SCHEMA.with_metadata({"seal": BLANK, "mode": mode})
    with (
        sealed_file(path) as partial,
        pa.OSFile(str(partial), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for batch in _batches(rows):
            columns = [[getattr(row, name) for row in batch] for name in schema.names]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.image)
        if size >= BATCH_BYTES or len(batch) >= BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class ImageStore:
    """The images of one split, read one at a time from a file that `write_store` made.

    mode: "L" or "RGB".
    labels, ids: int64 [N], unique over the whole data set.
    class_names: the class of each label in this split.

    Memory holds these and the images' places in the file, 32 bytes an image. Pickles as its path, so
    that every worker opens the file itself. Raises `DataError` for a file that is missing, damaged or no
    store, or another one than the manifest beside it names.

    known: the file was checked before, by another process.
    """

    def __init__(self, path: str | Path, known: bool = False) -> None:
        self.file = Path(path)
        try:
            self._content = pa.OSFile(str(path), "rb")
            arrow = ArrowFile(path, known=known)
            if not arrow.schema.equals(SCHEMA) or b"mode" not in (arrow.schema.metadata or {}):
                raise DataError(f"{path} is no image store of this version: {_REMEDY}")
            self.mode: str = arrow.schema.metadata[b"mode"].decode()
            self._read_columns(arrow)
        except FileNotFoundError:
            raise DataError(f"{path} does not exist: {_REMEDY}") from None
        except BrokenSeal as error:
            raise DataError(f"{path} {error}: {_REMEDY}") from None
        except (OSError, ValueError):
            raise DataError(f"{path} is no Arrow file: {_REMEDY}") from None
        if not known:
            _check_named(self.file, arrow.seal)

    def _read_columns(self, arrow: ArrowFile) -> None:
        labels, ids, starts, sizes = ([np.empty(0, dtype=np.int64)] for _ in range(4))
        self.class_names: dict[int, str] = {}
        for batch in arrow.batches():
            labels.append(batch["label"].to_numpy().copy())
            ids.append(batch["id"].to_numpy().copy())
            _, offsets, content = batch["image"].buffers()
            places = np.frombuffer(offsets, dtype=np.int64, count=len(batch) + 1)
            starts.append(places[:-1] + (content.address - arrow.address))
            sizes.append(np.diff(places))
            present, first = np.unique(labels[-1], return_index=True)
            for label, row in zip(present.tolist(), first.tolist(), strict=True):
                self.class_names.setdefault(label, batch["class_name"][row].as_py())
        self.labels: NDArray[np.int64] = np.concatenate(labels)
        self.ids: NDArray[np.int64] = np.concatenate(ids)
        self._starts, self._sizes = np.concatenate(starts), np.concatenate(sizes)

    def __len__(self) -> int:
        return len(self.labels)

    def __reduce__(self) -> tuple[type[ImageStore], tuple[Path, bool]]:
        return ImageStore, (self.file, True)

    def image(self, index: int) -> Tensor:
        """One image in the store's mode, uint8 [C, H, W]; raises `DataError` where its bytes are damaged."""
        start, size = int(self._starts[index]), int(self._sizes[index])
        try:
            return decode(self._content.read_at(size, start), self.mode)
        except (DataError, OSError, ValueError):
            raise DataError(f"{self.file} is damaged (row {index}, {self.path(index)}): {_REMEDY}") from None

    def path(self, index: int) -> str:
        """The path of one image, as users know it; slow, as it reads the column anew."""
        return str(
            [path for batch in ArrowFile(self.file, known=True).batches() for path in batch["path"]][index]
        )


def _check_named(file: Path, digest: str) -> None:
    """Raises `DataError` where there is a manifest that names another digest for this split."""
    path = file.with_name("manifest.json")
    if path.exists():
        splits = read_sealed_json(path, _REMEDY).get("splits")
        split = splits.get(file.stem) if isinstance(splits, dict) else None
        if not isinstance(split, dict) or split.get("digest") != digest:
            raise DataError(f"{file} is not the store that {path} names: {_REMEDY}")
