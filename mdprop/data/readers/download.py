"""Downloads of archives that resume and are checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from http.client import PARTIAL_CONTENT, HTTPException, HTTPResponse
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from mdprop.data.readers.archives import extract, file_errors, refuse_occupied
from mdprop.errors import DataError, one_line
from mdprop.runtime.progress import track

TIMEOUT = 60.0  # seconds without a byte
MIB = 2**20


class Archive(NamedTuple):
    """A .zip, .tar or compressed tar to download by http(s); md5 in lower case, size in bytes."""

    url: str
    md5: str
    size: int


def obtain(archive: Archive, into: Path) -> None:
    """The content of an archive, as the folder `into`, which is missing or empty; see `extract`.

    The archive comes to <its name>.part beside `into`, which a later call goes on with, and which
    is removed once it is extracted. An archive that lies there under its own name, as a browser
    leaves it, is used instead, and stays.

    Raises `DataError` for an `into` that is not empty; where the archive cannot be reached, or is of
    another size; where it came in part (the .part stays) or has another checksum (the .part goes);
    and as `extract` does.
    """
    into = into.expanduser()
    own = into.parent / PurePosixPath(unquote(urlsplit(archive.url).path)).name
    part = own.with_name(own.name + ".part")
    with file_errors(part):
        refuse_occupied(into)
        if own.is_file():
            found = _md5(own)[0].hexdigest()
            if found != archive.md5:
                raise DataError(
                    f"{own} has the MD5 {found}, not {archive.md5}: remove it and run the command again"
                )
            extract(own, into)
        else:
            _download(archive, part, f"download it to {own} by hand, or put the data at {into}")
            extract(part, into)
            part.unlink()


def _download(archive: Archive, part: Path, remedy: str) -> None:
    """The archive to `part`, going on with what is there."""
    url, md5, size = archive
    digest, done = _md5(part) if part.is_file() else (_new_md5(), 0)
    if digest.hexdigest() == md5:
        return
    if done >= size:
        digest, done = _new_md5(), 0
    headers = {"User-Agent": "mdprop", **({"Range": f"bytes={done}-"} if done else {})}
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except (OSError, HTTPException) as error:
        reason = one_line(error) or type(error).__name__
        raise DataError(f"{url} cannot be downloaded ({reason}): {remedy}") from None
    with response:
        if response.status != PARTIAL_CONTENT:
            digest, done = _new_md5(), 0
        if response.length is not None and done + response.length != size:
            raise DataError(
                f"{url} offers {done + response.length} bytes, not the archive's {size}: {remedy}"
            )
        part.parent.mkdir(parents=True, exist_ok=True)
        pieces = -(-(size - done) // MIB)
        with part.open("ab" if done else "wb") as file:
            for chunk in track(_chunks(response), f"downloading {part.stem} (MiB)", pieces):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
    if done < size:
        raise DataError(
            f"{url}: the connection closed after {done} of {size} bytes: "
            "run the command again to resume the download"
        )
    if (found := digest.hexdigest()) != md5:
        part.unlink()
        raise DataError(
            f"{url} came with the MD5 {found}, not {md5}; {part.name} is removed: "
            f"run the command again, or {remedy}"
        )


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    """What comes, up to the end or until the connection breaks."""
    with suppress(OSError, HTTPException):
        while chunk := response.read(MIB):
            yield chunk


def _new_md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)


def _md5(path: Path) -> tuple[hashlib._Hash, int]:
    """The checksum of a file, to be gone on with, and its bytes."""
    digest = _new_md5()
    with path.open("rb") as file:
        while chunk := file.read(MIB):
            digest.update(chunk)
        return digest, file.tell()
