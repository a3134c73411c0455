"""Small archives, and what became of them."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FILES = {
    "set/images/1.jpg": b"one",
    "set/images/2.jpg": b"two" * 1000,
    "set/list.txt": b"",
    "beside.txt": b"x",
}
EXTRACTED = {"images/1.jpg": b"one", "images/2.jpg": b"two" * 1000, "list.txt": b"", "beside.txt": b"x"}
NOISE = random.Random(0).randbytes(50_000)  # does not compress


def pack(path: Path, content: dict[str, bytes] = FILES) -> Path:
    """An archive of the kind that the path's end names; names that end in a slash are folders."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            for name, data in content.items():
                made.writestr(name, data)
        return path
    compression = {".tgz": "gz", ".gz": "gz", ".bz2": "bz2", ".xz": "xz", ".tar": ""}[path.suffix]
    with tarfile.open(path, f"w:{compression}") as tar:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(info, io.BytesIO(data))
    return path


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder: a file's content, None for what is no file."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def files(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if content is not None}


@contextmanager
def nothing_changes(folder: Path) -> Iterator[None]:
    before = tree(folder)
    yield
    assert tree(folder) == before
