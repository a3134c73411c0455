"""What the published data sets share: where they come from, and their numbers of classes and images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mdprop.data.readers.download import Archive, obtain
from mdprop.data.readers.entries import Splits
from mdprop.data.readers.settings import ImageSettings
from mdprop.data.readers.tree import existing_root, is_absent
from mdprop.errors import DataError
from mdprop.settings import FilePath, expanded


class PublishedSettings(ImageSettings):
    root: FilePath
    check_counts: bool


class Counts(NamedTuple):
    classes: int
    images: int


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


def read_published(
    settings: PublishedSettings, key: str, published: Published, splits_at: Callable[[Path], Splits]
) -> Splits:
    """The splits that `splits_at` finds at the root, which is downloaded where it is missing or empty.

    Raises `DataError`, which says where to get the data and what is expected, and, with
    `check_counts`, for other numbers than the published ones.
    """
    splits = splits_at(_root(settings.root, published, key))
    if settings.check_counts:
        _check_counts(splits, published, settings.root, key)
    return splits


def _root(root: str, published: Published, key: str) -> Path:
    path = expanded(root, f"{key}.root")
    if is_absent(path):
        remedy = f"get it {published.source}, and put there {published.layout}"
        if published.archive is None:
            raise DataError(f"{key}.root = {root} is missing or empty: {remedy}")
        try:
            obtain(published.archive, into=path)
        except DataError as error:
            raise DataError(
                f"{key}.root = {root} is missing or empty, and {published.name} was not downloaded "
                f"({error}): {remedy}"
            ) from None
    return existing_root(path, key, published.layout)


def _check_counts(splits: Splits, published: Published, root: str, key: str) -> None:
    for split, expected in published.counts.items():
        classes = splits[split].values()
        found = Counts(len(classes), sum(map(len, classes)))
        if found != expected:
            raise DataError(
                f"{published.name} at {root} has {found.images:,} images of {found.classes:,} classes for "
                f"{split}, published are {expected.images:,} of {expected.classes:,}; it was probably not "
                f"extracted completely: complete it, or take it as it is with {key}.check_counts=false"
            )
