"""The lists of images that come with published data sets."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from mdprop.data.audit import some
from mdprop.data.readers.entries import Entry, images_below
from mdprop.errors import DataError


class Listed(NamedTuple):
    """An image in a list: its place there, its class and its path below the base folder."""

    number: int
    class_name: str
    path: str


def read_rows(file: Path, columns: str, header_lines: Iterable[str] = ()) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of each row of a text file; the last field may hold spaces.

    columns: their names; header_lines: what the file begins with, "*" for any line.
    Raises `DataError`, which names file and line, for another header or number of fields, and for a
    file without rows.
    """
    width = len(columns.split())
    expected = list(header_lines)
    found = False
    for number, line in enumerate(_lines(file), 1):
        fields = line.split(maxsplit=width - 1)
        if number <= len(expected):
            if expected[number - 1] not in ("*", " ".join(line.split())):
                raise malformed(file, number, line, expected[number - 1])
        elif len(fields) == width:
            found = True
            yield number, [field.strip() for field in fields]
        elif fields:
            raise malformed(file, number, line, columns)
    if not found:
        raise DataError(f"{file} lists no images: extract the data set again")


def malformed(file: Path, number: int, line: str, needed: str) -> DataError:
    shown = line if len(line) <= 60 else f"{line[:60]}..."
    return DataError(f"{file}, line {number}: '{shown}' is not '{needed}': extract the file again")


def listed_entries(file: Path, base: Path, images: Iterable[Listed], unit: str = "line") -> Iterator[Entry]:
    """The entries of the images that `file` lists.

    Raises `DataError` for an image that is listed twice or outside of `base`, and when some are missing.
    """
    source = images_below(base)
    hashes: set[int] = set()  # of the paths, which would take more memory
    missing: list[str] = []
    for number, class_name, path in images:
        if hash(path) in hashes:
            raise DataError(
                f"{file}, {unit} {number}: {path} is listed a second time: extract the file again"
            )
        if os.path.isabs(path) or ".." in path.split("/"):
            raise DataError(f"{file}, {unit} {number}: {path} is outside of {base}: extract the file again")
        hashes.add(hash(path))
        if not os.path.isfile(os.path.join(base, path)):
            missing.append(os.path.join(base, path))
        yield Entry(class_name, path, source)
    if missing:
        raise DataError(
            f"{len(missing):,} of the {len(hashes):,} images that {file} lists are missing: {some(missing)}: "
            "extract the images completely"
        )


def _lines(file: Path) -> Iterator[str]:
    """The lines of a text file, one at a time: the lists of large data sets are long."""
    if file.exists() and not file.is_file():
        raise DataError(f"{file} is no regular file: extract the data set again")
    try:
        with file.open(encoding="utf-8-sig") as lines:
            for line in lines:
                yield line.rstrip("\n")
    except FileNotFoundError:
        raise DataError(f"{file} is missing: extract the data set again, with its lists") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): check its permissions") from None
    except UnicodeDecodeError:
        raise DataError(f"{file} is no text file: extract the data set again") from None
