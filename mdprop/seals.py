"""A digest of its own bytes in each file between the stages: a change is noticed before the file is used.

Whoever writes a file puts `BLANK` where its format has room for a text, such as metadata, within the
first or the last 64 KiB. `seal` replaces it by the digest of all bytes as they are with the blank, and
`verify` finds any change of any byte, whatever the format. The file stays one of its format.

The digest is the SHA-256 of the SHA-256s of all pieces of 4 MiB: threads take them, where `sha256sum`
would be slower than reading.
"""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_PREFIX = "sealed:"
BLANK = _PREFIX + "0" * 64
PIECE = 4 * 2**20
_REACH = 2**16
_SEAL = re.compile(_PREFIX.encode() + rb"[0-9a-f]{64}")
_THREADS = 8


class BrokenSeal(ValueError):
    """What is wrong with a file, as the end of a sentence that begins with its path."""


def seal(path: Path) -> None:
    """Fill in the blank of a file that is complete. Raises `BrokenSeal` where it has none."""
    place, text = _find(path)
    if text != BLANK.encode():
        raise BrokenSeal("has no room for a seal")
    digest = _digest(path, place)
    with path.open("r+b") as file:
        file.seek(place + len(_PREFIX))
        file.write(digest.encode())


def seal_text(text: str) -> str:
    """A text with its blank filled in, as `seal` does with a file of it in UTF-8."""
    content = text.encode()
    return text.replace(
        BLANK, _PREFIX + _combined([content[i : i + PIECE] for i in _starts(len(content))]), 1
    )


def verify(path: Path) -> str:
    """The digest of a sealed file, which names its content. Raises `BrokenSeal` where it is another."""
    place, text = _find(path)
    named = text.decode().removeprefix(_PREFIX)
    if named != _digest(path, place):
        raise BrokenSeal("is damaged: its bytes are not those that were written")
    return named


def sealed_as(path: Path) -> str:
    """The digest that a sealed file names, which `verify` would check."""
    return _find(path)[1].decode().removeprefix(_PREFIX)


def _find(path: Path) -> tuple[int, bytes]:
    """Where the seal is, and its text: the first one near the beginning, or the last one near the end.

    An Arrow file repeats its metadata at the end, where the blank stays.
    """
    with path.open("rb") as file:
        if found := _SEAL.search(file.read(_REACH)):
            return found.start(), found.group()
        tail = max(0, os.fstat(file.fileno()).st_size - _REACH)
        file.seek(tail)
        for found in reversed(list(_SEAL.finditer(file.read()))):
            return tail + found.start(), found.group()
    raise BrokenSeal("is damaged, or of another version of mdprop: it has no seal")


def _digest(path: Path, place: int) -> str:
    """That of a file whose seal, at `place`, is taken to be blank."""

    def hashed(start: int) -> bytes:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            piece = file.read(PIECE)
        first, end = max(place, start), min(place + len(BLANK), start + len(piece))
        if first < end:
            blank = BLANK.encode()[first - place : end - place]
            piece = piece[: first - start] + blank + piece[end - start :]
        return hashlib.sha256(piece).digest()

    starts = _starts(path.stat().st_size)
    if len(starts) == 1:
        return hashlib.sha256(hashed(0)).hexdigest()
    with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
        return hashlib.sha256(b"".join(pool.map(hashed, starts))).hexdigest()


def _starts(size: int) -> range:
    return range(0, size or 1, PIECE)


def _combined(pieces: list[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(piece).digest() for piece in pieces)).hexdigest()
