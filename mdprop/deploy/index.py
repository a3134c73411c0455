"""A folder of images as a FAISS index, with their names and what made it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mdprop.deploy.pictures import embed_files, images_in, refuse
from mdprop.deploy.trained import Trained
from mdprop.errors import DataError, DiskError, ResultError, disk_error
from mdprop.files import read_sealed_json, sealed_json, whole_file, write_files
from mdprop.runtime.provenance import provenance
from mdprop.runtime.scratch import scratch_beside
from mdprop.runtime.state import file_digest

VECTORS = "vectors.faiss"
RECORD = "index.json"
_REMEDY = "make it again with mdprop index"


@dataclass(frozen=True)
class ImageIndex:
    """An index on disk, read and checked.

    images: the folder that was indexed. names: of its images, by their paths there.
    vectors: [N, D] of unit norm. maker: of the model, its folder, weights (a digest) and branch;
        preprocessing: see `Preprocessing`.
    """

    folder: Path
    images: Path
    names: list[str]
    vectors: NDArray[np.float32]
    maker: dict[str, str]
    preprocessing: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> ImageIndex:
        """Raises `DataError` for what is no index, and `ResultError` for one that is damaged."""
        if not (folder / RECORD).is_file():
            raise DataError(f"{folder} is no index, it has no {RECORD}: make one with mdprop index")
        record = read_sealed_json(folder / RECORD, _REMEDY)
        file = folder / VECTORS
        try:
            if file_digest(file) != record["vectors"]:
                raise ResultError(f"{file} is damaged, or not the one that {RECORD} names: {_REMEDY}")
            index: Any = faiss.deserialize_index(np.fromfile(file, dtype=np.uint8))
            # A tensor where some other library has imported faiss.contrib.torch_utils, which changes FAISS.
            vectors = np.asarray(index.reconstruct_n(0, index.ntotal))
            return cls(
                folder,
                Path(record["images"]),
                record["names"],
                vectors,
                record["model"],
                record["preprocessing"],
            )
        except OSError as error:
            raise ResultError(f"{file} cannot be read ({error.strerror}): {_REMEDY}") from None
        except (KeyError, TypeError):
            raise ResultError(f"{folder / RECORD} is of another version: {_REMEDY}") from None

    def __len__(self) -> int:
        return len(self.names)

    def refuse_other(self, trained: Trained) -> None:
        """Raises `DataError` for a model, a branch or a preprocessing that did not make this index."""
        made = {"model": self.maker["weights"][:12], "branch": self.maker["branch"], **self.preprocessing}
        asked = {
            "model": trained.weights[:12],
            "branch": trained.branch,
            **trained.preprocessing.as_dict(),
        }
        for name, value in made.items():
            if asked.get(name) != value:
                raise DataError(
                    f"{self.folder} was made with another {name}, {value}, where {trained.folder} would "
                    f"answer with {asked.get(name)}: search with its own, or {_REMEDY}"
                )


def build_index(trained: Trained, images: Path, out: Path, *, skip: bool = False) -> list[str]:
    """Embed the images in and below a folder, and write the index `out`, a folder, whole or not at all.

    It holds vectors.faiss, which `faiss.read_index` reads, and index.json, sealed; an earlier index there
    is replaced. skip: whether images that cannot be used are left out, or an error that names them all.

    Returns what is wrong with those that were left out. Raises `DataError` for that error, for a folder
    without images, and where `out` is no index.
    """
    _refuse_foreign(out)
    with _written(out), scratch_beside(out):
        pass  # a place that takes nothing shows before the work
    entries = images_in(images)
    kept, vectors, errors = embed_files(trained, entries, f"indexing {images}")
    if not skip:
        refuse(errors, len(entries), "mend or remove them, or leave them out with --skip")
    if not kept:
        refuse(errors, len(entries), "none is left; mend them")
    skipped = [f"{error.name} {error.problem}" for error in errors]
    index: Any = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    record = {
        "model": {
            "folder": os.path.abspath(trained.folder),
            "weights": trained.weights,
            "branch": trained.branch,
        },
        "preprocessing": trained.preprocessing.as_dict(),
        "images": os.path.abspath(images),
        "provenance": provenance(),
        "skipped": skipped,
        "names": [entry.name for entry in kept],
    }
    _write(out, faiss.serialize_index(index), record)
    return skipped


def _write(out: Path, vectors: NDArray[np.uint8], record: Mapping[str, Any]) -> None:
    with _written(out), scratch_beside(out) as scratch:
        new = scratch / "new"
        with whole_file(new / VECTORS) as partial:
            partial.write_bytes(vectors.data)
        content = {"vectors": file_digest(new / VECTORS), **record}
        write_files({new / RECORD: sealed_json(content)})
        if out.exists():
            _refuse_foreign(out)
            out.rename(scratch / "old")
        new.rename(out)


@contextmanager
def _written(out: Path) -> Iterator[None]:
    """Say `out` in what a disk refuses, not a temporary name."""
    try:
        yield
    except (OSError, DiskError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        trouble = disk_error(cause, out) if isinstance(cause, OSError) else None
        raise trouble or DataError(f"{out} cannot be written ({error})") from None


def _refuse_foreign(out: Path) -> None:
    """Raises `DataError` for a place that holds something else than an index, as it would be replaced."""
    if not out.exists():
        return
    found = sorted(path.name for path in out.iterdir()) if out.is_dir() else [out.name]
    foreign = [name for name in found if name not in (VECTORS, RECORD)]
    if foreign or not out.is_dir():
        raise DataError(f"{out} is no index, and would be replaced (there is {foreign[0]}): move it away")
