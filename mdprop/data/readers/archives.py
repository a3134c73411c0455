"""Archives, extracted whole or not at all."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from mdprop.errors import DataError, one_line
from mdprop.runtime.progress import track
from mdprop.runtime.scratch import scratch_beside

DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)


def extract(archive: Path, into: Path) -> None:
    """The files of a tar (of any compression) or zip archive, as the folder `into`; all or nothing.

    archive: one whose checksum has passed. Files below a top folder of `into`'s name lose that
    folder, the others keep their path.

    Raises `DataError` for an `into` that is not empty, for what is no archive, and for what the file
    system refuses.
    """
    target = into.expanduser().resolve()
    try:
        with file_errors(target):
            refuse_occupied(target)
            with scratch_beside(target) as scratch:
                made = scratch / "made"
                made.mkdir()
                for _ in track(_extracted(archive, made, into.name), f"extracting {archive.name}"):
                    pass
                if target.exists():
                    target.rmdir()
                made.rename(target)
    except DAMAGE as error:
        reason = one_line(error) or type(error).__name__
        raise DataError(f"{archive} is damaged or no archive ({reason}): remove it, get it again") from None


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn what a file system refuses into a `DataError`; gzip's and bz2's own errors have no number."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        place = error.filename or path
        raise DataError(f"{place}: {error.strerror}: mend the path, permissions or free space") from None


def refuse_occupied(into: Path) -> None:
    """Raise `DataError` for a path that is neither missing nor an empty folder."""
    if into.exists() and not (into.is_dir() and not any(into.iterdir())):
        raise DataError(f"{into} exists and is not an empty folder: remove it, to have the data put there")


def _extracted(archive: Path, folder: Path, top: str) -> Iterator[None]:
    """Extract to `folder`, a file a step."""
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):  # Python 3.12, and later versions of 3.10 and 3.11
                tar.extraction_filter = staticmethod(tarfile.data_filter)
            for member in tar:
                if not member.isdir():
                    member.name = _below(member.name, top)
                    tar.extract(member, folder)
                    yield
        return
    with zipfile.ZipFile(archive) as content:
        for info in content.infolist():
            if not info.is_dir():
                info.filename = _below(info.filename, top)
                content.extract(info, folder)
                yield


def _below(name: str, top: str) -> str:
    path = PurePosixPath(name)
    return str(path.relative_to(top) if path.parts[0] == top and len(path.parts) > 1 else path)
