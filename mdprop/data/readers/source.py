"""What the published data sets share: where they come from, their counts, their lists of images."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mdprop.data.readers.download import obtain
from mdprop.data.readers.entries import Entry, Splits, images_below
from mdprop.data.readers.folder import existing_root, is_absent
from mdprop.errors import DataError


class Counts(NamedTuple):
    classes: int
    images: int


class Archive(NamedTuple):
    """A file to download; `size` in bytes, where it is known."""

    url: str
    md5: str
    size: int | None


@dataclass(frozen=True)
class Published:
    """What is published about a data set.

    counts: of each split that its reader returns.
    layout: what is expected at the root.
    source: where to get it, as the end of a sentence that begins with "get it".
    archive: what is downloaded where the root is missing; None where nobody serves it freely.
    """

    name: str
    counts: dict[str, Counts]
    layout: str
    source: str
    archive: Archive | None = None


class Listed(NamedTuple):
    """An image in a list: its place there, its class and its path below the base folder."""

    number: int
    class_name: str
    path: str


def published_root(root: str, published: Published, key: str) -> Path:
    """The root of a published data set, downloaded there where it is missing or empty.

    Raises `DataError`, which says where to get the data and what is expected.
    """
    path = Path(root).expanduser()
    if is_absent(path):
        remedy = f"get it {published.source}, and put there {published.layout}"
        if published.archive is None:
            raise DataError(f"{key}.root = {root} is missing or empty: {remedy}")
        try:
            obtain(*published.archive, into=path)
        except DataError as error:
            raise DataError(
                f"{key}.root = {root} is missing or empty, and {published.name} was not downloaded "
                f"({error}): {remedy}"
            ) from None
    return existing_root(path, key, published.layout)


def check_counts(splits: Splits, published: Published, root: str, key: str) -> None:
    """Compare the classes and images of each split with the published ones.

    Raises `DataError`, which names the first split that differs, both numbers and the remedy.
    """
    for split, expected in published.counts.items():
        classes = splits[split].values()
        found = Counts(len(classes), sum(map(len, classes)))
        if found != expected:
            raise DataError(
                f"{published.name} at {root} has {found.images:,} images of {found.classes:,} classes for "
                f"{split}, published are {expected.images:,} of {expected.classes:,}; it was probably not "
                f"extracted completely: complete it, or take it as it is with {key}.check_counts=false"
            )


def first_folder_with(name: str, root: Path, *below: str) -> Path | None:
    """The first of `root` and its folders `below` that holds `name`."""
    return next((folder for folder in (root, *map(root.joinpath, below)) if (folder / name).exists()), None)


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


def _lines(file: Path) -> Iterator[str]:
    """The lines of a text file, one at a time: the lists of large data sets are long."""
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


def malformed(file: Path, number: int, line: str, needed: str) -> DataError:
    shown = line if len(line) <= 60 else f"{line[:60]}..."
    return DataError(f"{file}, line {number}: '{shown}' is not '{needed}': extract the file again")


def listed_entries(file: Path, base: Path, images: Iterable[Listed], unit: str = "line") -> Iterator[Entry]:
    """The entries of the images that `file` lists.

    Raises `DataError` for an image that is listed twice, or when some are missing below `base`.
    """
    source = images_below(base)
    numbers, hashes = array("q"), array("q")  # of the paths, which would take ten times the memory
    missing: list[str] = []
    for number, class_name, path in images:
        numbers.append(number)
        hashes.append(hash(path))
        if not os.path.isfile(os.path.join(base, path)):
            missing.append(path)
        yield Entry(class_name, path, source)
    if not np.diff(np.sort(hashes)).all():
        first, second = _first_twice(numbers, hashes)
        raise DataError(f"{file}, {unit}s {first} and {second} list the same image: extract the file again")
    if missing:
        raise DataError(
            f"{len(missing):,} of the {len(numbers):,} images that {file} lists are missing, the first is "
            f"{os.path.join(base, missing[0])}: extract the images completely"
        )


def _first_twice(numbers: Iterable[int], hashes: Iterable[int]) -> tuple[int, int]:
    """The numbers of the first hash that comes again."""
    seen: dict[int, int] = {}
    return next(
        (seen[value], number)
        for number, value in zip(numbers, hashes, strict=True)
        if seen.setdefault(value, number) != number
    )
