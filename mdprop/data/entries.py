"""The images of a data set before they are prepared, and what their splits must hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from mdprop.errors import DataError


@dataclass(frozen=True)
class Entry:
    """An image that can be read; `path` is what users are shown."""

    class_name: str
    path: str
    read: Callable[[], Image.Image]


Splits = dict[str, list[Entry]]
"""The entries of "train", "val" and "test"; no class is in two of them, "val" may be empty."""

Classes = dict[str, list[Entry]]
"""The entries of each class."""


def halve(classes: Classes) -> tuple[Classes, Classes]:
    """The first half of the classes and the rest, in sorted order; an odd one goes to the second."""
    names = sorted(classes)
    middle = len(names) // 2
    return {n: classes[n] for n in names[:middle]}, {n: classes[n] for n in names[middle:]}


def hold_out(train: Classes, validation_classes: int, key: str) -> tuple[Classes, Classes]:
    """The training classes without the last ones, in sorted order, and those: train and val.

    Raises `DataError`, which names `key`.validation_classes, when fewer than two classes remain.
    """
    names = sorted(train)
    most = max(len(names) - 2, 0)
    if not 0 <= validation_classes <= most:
        raise DataError(
            f"{key}.validation_classes = {validation_classes}: allowed are 0 to {most}, "
            f"as 2 or more of the {len(names)} training classes must be left to train on"
        )
    first = len(names) - validation_classes
    return {n: train[n] for n in names[:first]}, {n: train[n] for n in names[first:]}


def make_splits(train: Classes, val: Classes, test: Classes) -> Splits:
    """The splits, each sorted by class; raises `DataError` as `check_splits` does."""
    splits = {"train": train, "val": val, "test": test}
    return check_splits(
        {split: [e for name in sorted(classes) for e in classes[name]] for split, classes in splits.items()}
    )


def check_splits(splits: Splits) -> Splits:
    """Return the splits when retrieval can work with them.

    Raises `DataError` when a class is in two splits, when a class has a single image, or when
    "train" or "test" has fewer than two classes.
    """
    home: dict[str, str] = {}
    for split, entries in splits.items():
        sizes = Counter(entry.class_name for entry in entries)
        for name, size in sizes.items():
            if name in home:
                raise DataError(
                    f"class '{name}' is in {home[name]} and in {split}, but retrieval is tested on "
                    "unseen classes: rename it in one of them, or move its images into one"
                )
            if size < 2:
                raise DataError(
                    f"class '{name}' of {split} has 1 image; 2 or more are needed: add images or remove it"
                )
            home[name] = split
        if split != "val" and len(sizes) < 2:
            raise DataError(f"{split} has {len(sizes)} class(es); 2 or more are needed: add classes to it")
    return splits
