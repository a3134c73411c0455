"""Archives, extracted whole or not at all."""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from mdprop.errors import DataError, one_line
from mdprop.runtime.progress import track

MIB = 2**20
KINDS_IN_ZIP = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: made on a system without such kinds
NOT_PLAIN = "is no plain file: a device, a FIFO or the like"
# What tarfile and zipfile raise for damage: the second row for headers without sense.
DAMAGE: tuple[type[Exception], ...] = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
DAMAGE += (OSError, EOFError, struct.error, ValueError, LookupError, ArithmeticError, RuntimeError)


def extract(archive: Path, into: Path) -> None:
    """The members of a tar (of any compression) or zip archive, as the folder `into`; all or nothing.

    Members below a top folder of `into`'s name lose that folder, the others keep their path. Only
    folders and the bytes of plain files are made: no owners, permissions or times.

    Raises `DataError` for an `into` that is not empty, a damaged or empty archive, and, before
    anything is written, for a member that is no plain file or folder, is encrypted, has an absolute
    path, a `..`, a drive or a backslash in its path, or shares its path with another (in any case of
    letters, so that an archive is the same on every file system).
    """
    target = into.expanduser().resolve()
    try:
        with file_errors(target), _members(archive) as found:
            refuse_occupied(target)
            members = _targets(found, into.name, archive)
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
                made = Path(scratch) / "made"
                made.mkdir()
                for path, member in track(members.items(), f"extracting {archive.name}"):
                    _write(member, path, made)
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


class _Member(NamedTuple):
    name: str
    is_folder: bool
    fault: str  # why it is refused; "" where it is not
    open: Callable[[Path], IO[bytes] | None]  # its content, to be written below a folder


@contextmanager
def _members(archive: Path) -> Iterator[Iterable[_Member]]:
    """The members of an archive that is open for as long as the context is."""
    with archive.open("rb") as file:
        is_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
        file.seek(0)
        if is_zip:
            with zipfile.ZipFile(file) as content:
                yield [_zip_member(content, info) for info in content.infolist()]
            return
        if not tarfile.is_tarfile(file):
            raise tarfile.ReadError("neither tar nor zip")
        file.seek(0)
        with tarfile.open(fileobj=file) as tar:
            infos = tar.getmembers()
            _check_end(tar)
            yield [_tar_member(tar, info) for info in infos]


def _check_end(tar: tarfile.TarFile) -> None:
    """`ReadError` where the members do not end with the mark of the end.

    tarfile takes a damaged header for the end, and leaves unread what comes after the end: the
    checksums of gzip, bzip2 and xz.
    """
    file: Any = tar.fileobj
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError("its end is missing")
    while file.read(MIB):
        pass


def _tar_member(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Member:
    fault = ""
    if info.issym() or info.islnk():
        fault = f"is a {'symbolic' if info.issym() else 'hard'} link"
    elif not info.isdir() and (not info.isreg() or info.issparse()):
        fault = NOT_PLAIN

    def content(folder: Path) -> IO[bytes] | None:
        if hasattr(tarfile, "data_filter"):  # Python 3.12, and later versions of 3.10 and 3.11
            return tar.extractfile(tarfile.data_filter(info, str(folder)))
        return tar.extractfile(info)

    return _Member(info.name, info.isdir(), fault, content)


def _zip_member(content: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    fault = ""
    if kind == stat.S_IFLNK:
        fault = "is a symbolic link"
    elif kind not in KINDS_IN_ZIP:
        fault = NOT_PLAIN
    elif info.flag_bits & 1:
        fault = "is encrypted"
    return _Member(info.orig_filename, info.is_dir(), fault, lambda folder: content.open(info))


def _targets(members: Iterable[_Member], top: str, archive: Path) -> dict[PurePosixPath, _Member]:
    """Where each member goes; `DataError` for the first that may not go there."""
    targets: dict[PurePosixPath, _Member] = {}
    taken = {".": (PurePosixPath(), True)}  # in one case of letters: the path, and whether it is a folder
    for member in members:
        parts = PurePosixPath(member.name).parts
        if parts[:1] == (top,) and (member.is_folder or len(parts) > 1):
            parts = parts[1:]
        path = PurePosixPath(*parts)
        fault = member.fault or _path_fault(member.name)
        if not fault:
            claims = [*((folder, True) for folder in path.parents), (path, member.is_folder)]
            clashes = any(taken.setdefault(_folded(claim[0]), claim) != claim for claim in claims)
            if clashes or (path in targets and not member.is_folder):
                fault = "clashes with another member"
        if fault:
            raise DataError(f"{archive}: member {member.name!r} {fault}: nothing is extracted")
        targets[path] = member
    if all(member.is_folder for member in targets.values()):
        raise DataError(f"{archive} holds no files: get another copy")
    return targets


def _path_fault(name: str) -> str:
    if name.startswith("/"):
        return "has an absolute path"
    if ".." in name.split("/"):
        return "has .. in its path"
    if "\\" in name or "\0" in name:
        return "has a backslash or a zero byte in its path"
    if re.search("(^|/)[A-Za-z]:", name):
        return "has a drive in its path"
    return ""


def _folded(path: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


def _write(member: _Member, path: PurePosixPath, folder: Path) -> None:
    target = folder / path
    if member.is_folder:
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = member.open(folder)
    assert source is not None  # tarfile has no content for links and devices only
    with source, target.open("xb") as file:
        shutil.copyfileobj(source, file, MIB)
