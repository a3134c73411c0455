"""The images of a data set before they are prepared, and what their splits must hold."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from PIL import Image

from mdprop.data.images import open_image
from mdprop.errors import DataError

T = TypeVar("T")

SPLITS = ("train", "val", "test", "gallery")


@dataclass(frozen=True, slots=True)
class Entry:
    """An image that can be read; small, as a data set has one for every image.

    source: reads the image of a name; all entries of a data set share one.
    """

    class_name: str
    name: str
    source: Callable[[str], Image.Image]

    @property
    def path(self) -> str:
        """The name as users are shown it."""
        return as_text(self.name)

    def read(self) -> Image.Image:
        return self.source(self.name)


def images_below(folder: str | Path) -> Callable[[str], Image.Image]:
    """The source of entries that are named by their path below a folder."""
    return partial(_open_below, str(folder))


def _open_below(folder: str, name: str) -> Image.Image:
    return open_image(os.path.join(folder, name))


def as_text(name: str) -> str:
    """A file's name as valid Unicode, which a name on disk need not be."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return name if text == name else text


Splits = dict[str, list[Entry]]
"""The entries of "train", "val", "test" and, where queries have one of their own, "gallery".

No class is in two of them, but for those of "test" (the queries) and "gallery"; "val" may be empty.
"""

Classes = dict[str, list[Entry]]
"""The entries of each class."""


def by_class(entries: Iterable[Entry]) -> Classes:
    """The entries of each class, in the order in which they come."""
    classes: Classes = {}
    for entry in entries:
        classes.setdefault(entry.class_name, []).append(entry)
    return classes


def halve(classes: Classes) -> tuple[Classes, Classes]:
    """The first half of the classes and the rest, in sorted order; an odd one goes to the second."""
    names = sorted(classes)
    middle = len(names) // 2
    return {n: classes[n] for n in names[:middle]}, {n: classes[n] for n in names[middle:]}


def hold_out(train: Classes, validation_classes: int) -> tuple[Classes, Classes]:
    """The training classes without the last ones, in sorted order, and those: train and val.

    A class of one image has nothing to retrieve and stays in train.
    Raises `DataError`, which names dataset.validation_classes, when fewer than two classes remain.
    """
    names = [name for name in sorted(train) if len(train[name]) > 1]
    most = max(min(len(train) - 2, len(names)), 0)
    if not 0 <= validation_classes <= most:
        raise DataError(
            f"dataset.validation_classes = {validation_classes}: allowed are 0 to {most}, "
            f"as 2 or more of the {len(train)} training classes must be left to train on"
        )
    held_out = set(names[len(names) - validation_classes :])
    rest = {name: entries for name, entries in train.items() if name not in held_out}
    return rest, {name: train[name] for name in sorted(held_out)}


def keep_fraction(train: Classes, fraction: float, fraction_of: str) -> Classes:
    """The data-scarce setting: a share of each class's images, or of the classes.

    fraction: in (0, 1]; rounded to whole images or classes, of which two stay at least.
    fraction_of: "images" or "classes".

    Which ones stay follows from a hash of their names alone. So a smaller fraction keeps a subset
    of a larger one, and what a class keeps does not depend on the other classes.
    Raises `DataError`, which names the key, for values that are not allowed.
    """
    if not 0 < fraction <= 1:
        raise DataError(f"dataset.train_fraction = {fraction}: allowed are numbers above 0, up to 1")
    if fraction_of == "classes":
        return {name: train[name] for name in _share(list(train), fraction, str)}
    if fraction_of == "images":
        return {name: _share(entries, fraction, lambda e: e.path) for name, entries in train.items()}
    raise DataError(f"dataset.fraction_of = {fraction_of}: known are images, classes")


def _share(items: list[T], fraction: float, name: Callable[[T], str]) -> list[T]:
    """The items whose names hash lowest, in their own order."""
    count = max(round(fraction * len(items)), 2)
    if count >= len(items):
        return items
    digests = [hashlib.sha256(name(item).encode()).digest() for item in items]
    kept = sorted(range(len(items)), key=digests.__getitem__)[:count]
    return [items[index] for index in sorted(kept)]


def make_splits(classes: dict[str, Classes]) -> Splits:
    """The splits, each in the order of its classes; raises `DataError` as `check_splits` does."""
    return check_splits({s: list(chain(*classes[s].values())) for s in SPLITS if s in classes})


def check_splits(splits: Splits) -> Splits:
    """Return the splits when retrieval can work with them.

    Raises `DataError` when a class is in two splits, when a class of "val" or "test" has no other
    image to be retrieved (in the gallery, where there is one), or when a split but "val" has fewer
    than two classes.
    """
    sizes = {split: Counter(entry.class_name for entry in entries) for split, entries in splits.items()}
    home: dict[str, str] = {}
    for split in splits:
        for name in sizes[split]:
            if name in home and (home[name], split) != ("test", "gallery"):
                raise DataError(
                    f"class '{name}' is in {home[name]} and in {split}, but retrieval is tested on "
                    "unseen classes: rename it in one of them, or move its images into one"
                )
            home[name] = split
        if split != "val" and len(sizes[split]) < 2:
            raise DataError(
                f"{split} has {len(sizes[split])} class(es); 2 or more are needed: add classes to it"
            )
    gallery = sizes.get("gallery")
    for split in ("val", "test"):
        for name, size in sizes[split].items():
            if split == "test" and gallery is not None:
                if name not in gallery:
                    raise DataError(
                        f"class '{name}' of the queries has no image in the gallery: add one, or remove it"
                    )
            elif size < 2:
                raise DataError(
                    f"class '{name}' of {split} has 1 image; 2 or more are needed: add images or remove it"
                )
    return splits
