"""Downloads of archives that resume and are checked."""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from mdprop.data.readers.archives import MIB, extract, file_errors, refuse_occupied
from mdprop.errors import DataError, one_line
from mdprop.runtime.progress import track

TIMEOUT = 60.0  # seconds without a byte


def obtain(url: str, md5: str, size: int | None, into: Path) -> None:
    """The content of the archive at `url`, as the folder `into`.

    url: of a .tar, .tgz, .tar.gz (.bz2, .xz) or .zip; http(s), or ftp, which does not resume.
    md5: of the archive, hexadecimal.
    size: of the archive in bytes, where it is known.
    into: missing or empty; see `extract`.

    The archive comes to <its name>.part beside `into`, which a later call goes on with, and which
    is removed once it is extracted. An archive that lies there under its own name, as a browser
    leaves it, is used instead, and stays.

    Raises `DataError` for an `into` that is not empty; where the archive cannot be reached, or is of
    another size; where it came in part (the .part stays) or has another checksum (the .part goes);
    and as `extract` does.
    """
    into = into.expanduser()
    archive = into.parent / PurePosixPath(unquote(urlsplit(url).path)).name
    part = archive.with_name(archive.name + ".part")
    with file_errors(part):
        refuse_occupied(into)
        if not archive.is_file():
            _download(url, md5, size, part, f"download it to {archive} by hand, or put the data at {into}")
            extract(part, into)
            part.unlink()
            return
        found = _md5(archive)[0].hexdigest()
        if found != md5.lower():
            raise DataError(f"{archive} has the MD5 {found}, not {md5}: remove it and run the command again")
        extract(archive, into)


class _Dropped(Exception):
    """The connection broke while the archive came."""


def _download(url: str, md5: str, size: int | None, part: Path, remedy: str) -> None:
    """The archive at `url` to `part`, going on with what is there."""
    digest, done = _md5(part) if part.is_file() else (_new_md5(), 0)
    if done and digest.hexdigest() == md5.lower():
        return
    try:
        response, start = _open(url, done)
    except (OSError, http.client.HTTPException) as error:
        reason = one_line(error) or type(error).__name__
        raise DataError(f"{url} cannot be downloaded ({reason}): {remedy}") from None
    dropped = ""
    with response:
        if not start:
            digest, done = _new_md5(), 0
        length = response.headers.get("Content-Length") or ""
        total = done + int(length) if length.isdecimal() else size
        if size is not None and total != size:
            raise DataError(f"{url} offers {total} bytes, not the archive's {size}: {remedy}")
        part.parent.mkdir(parents=True, exist_ok=True)
        pieces = None if total is None else -(-(total - done) // MIB)
        with part.open("ab" if start else "wb") as file:
            try:
                for chunk in track(_chunks(response), f"downloading {part.stem} (MiB)", pieces):
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    if total is not None and done > total:
                        break
            except _Dropped as error:
                dropped = str(error)
    if dropped if total is None else done < total:
        raise DataError(
            f"{url}: {done} of {'an unknown number of' if total is None else total} bytes came "
            f"({dropped or 'the connection closed'}): run the command again to resume the download"
        )
    if (found := digest.hexdigest()) != md5.lower():
        part.unlink()
        raise DataError(
            f"{url} came with the MD5 {found}, not {md5}; {part.name} is removed: "
            f"run the command again, or {remedy}"
        )


def _open(url: str, start: int) -> tuple[Any, int]:
    """A response, and at which byte its content starts: at `start`, or at 0 where the server will not."""
    headers = {"User-Agent": "mdprop"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if start and error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _open(url, 0)
        raise
    is_part = start > 0 and response.status == http.client.PARTIAL_CONTENT
    if is_part and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        response.close()
        return _open(url, 0)
    return response, start if is_part else 0


def _chunks(response: Any) -> Iterator[bytes]:
    try:
        while chunk := response.read(MIB):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise _Dropped(one_line(error) or type(error).__name__) from None


def _new_md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)


def _md5(path: Path) -> tuple[hashlib._Hash, int]:
    """The checksum of a file, to be gone on with, and its bytes."""
    digest, done = _new_md5(), 0
    with path.open("rb") as file:
        while chunk := file.read(MIB):
            digest.update(chunk)
            done += len(chunk)
    return digest, done
