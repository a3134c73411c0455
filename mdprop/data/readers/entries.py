"""The images of a data set before they are prepared, and what their splits must hold."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from typing import Any, Literal, TypeVar

from PIL import Image

from mdprop.data.images import open_image
from mdprop.errors import DataError

T = TypeVar("T")

SPLITS = ("train", "val", "test", "gallery")
FractionOf = Literal["images", "classes"]
Evaluated = Literal["test", "validation"]


@dataclass(frozen=True, slots=True)
class Entry:
    """An image that can be read; `source` reads the image of a name."""

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


class Entries(Sequence[Entry]):
    """Entries of one class and source. Only names are kept, end to end: large data sets have many."""

    __slots__ = ("_class_name", "_names", "_source")

    def __init__(self, class_name: str, source: Callable[[str], Image.Image]) -> None:
        self._class_name, self._source = class_name, source
        self._names = bytearray()

    def append(self, name: str) -> None:
        self._names += name.encode("utf-8", "surrogatepass") + b"\0"

    def __len__(self) -> int:
        return self._names.count(0)

    def __iter__(self) -> Iterator[Entry]:
        for name in self._names.split(b"\0")[:-1]:
            yield Entry(self._class_name, name.decode("utf-8", "surrogatepass"), self._source)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]


Classes = dict[str, Entries]
"""The entries of each class."""

Splits = dict[str, Classes]
"""The classes of "train", "val", "test" and, where queries have one of their own, "gallery".

No class is in two of them, but for those of "test" (the queries) and "gallery"; "val" may be empty.
"""


def by_class(entries: Iterable[Entry]) -> Classes:
    """The entries of each class, which share a source, in the order in which they come."""
    classes: Classes = {}
    for entry in entries:
        if entry.class_name not in classes:
            classes[entry.class_name] = Entries(entry.class_name, entry.source)
        classes[entry.class_name].append(entry.name)
    return classes


def entries_of(classes: Classes) -> Iterator[Entry]:
    """All entries, class by class."""
    return chain.from_iterable(classes.values())


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


def validation_only(splits: Splits) -> Splits:
    """The splits with the validation classes as "test", and nothing of the data set's own test classes.

    Raises `DataError`, which names dataset.validation_classes, when there are fewer than two of them.
    """
    if len(splits["val"]) < 2:
        raise DataError(
            f"dataset.evaluate = validation: {len(splits['val'])} validation class(es); 2 or more are "
            "needed: raise dataset.validation_classes"
        )
    return {"train": splits["train"], "val": {}, "test": splits["val"]}


def keep_fraction(train: Classes, fraction: float, fraction_of: FractionOf) -> Classes:
    """The data-scarce setting: a share of each class's images, or of the classes.

    fraction: in (0, 1]; rounded to whole images or classes, of which two stay at least.

    Which ones stay follows from a hash of their names alone. So a smaller fraction keeps a subset
    of a larger one, and what a class keeps does not depend on the other classes.
    """
    if fraction == 1:
        return train
    if fraction_of == "classes":
        return {name: train[name] for name in _share(list(train), fraction, str)}
    kept = (_share(list(entries), fraction, lambda e: e.path) for entries in train.values())
    return by_class(chain.from_iterable(kept))


def _share(items: list[T], fraction: float, name: Callable[[T], str]) -> list[T]:
    """The items whose names hash lowest, in their own order."""
    count = max(round(fraction * len(items)), 2)
    digests = [hashlib.sha256(name(item).encode()).digest() for item in items]
    kept = sorted(range(len(items)), key=digests.__getitem__)[:count]
    return [items[index] for index in sorted(kept)]


def make_splits(splits: Splits) -> Splits:
    """The splits in the order of `SPLITS`, when retrieval can work with them.

    Raises `DataError` when a class is in two splits, when the names of two classes differ by case or by
    how Unicode spells them only, when a class of "val" or "test" has no other
    image to be retrieved (in the gallery, where there is one), or when a split but "val" has fewer
    than two classes.
    """
    splits = {split: splits[split] for split in SPLITS if split in splits}
    for first, second in combinations(splits, 2):
        shared = next((name for name in splits[first] if name in splits[second]), None)
        if shared is not None and (first, second) != ("test", "gallery"):
            raise DataError(
                f"class '{shared}' is in {first} and in {second}, but retrieval is tested on "
                "unseen classes: rename it in one of them, or move its images into one"
            )
    _refuse_alike(splits)
    for split, classes in splits.items():
        if split != "val" and len(classes) < 2:
            raise DataError(f"{split} has {len(classes)} class(es); 2 or more are needed: add classes to it")
    gallery = splits.get("gallery")
    for split in ("val", "test"):
        for name, entries in splits[split].items():
            if split == "test" and gallery is not None:
                if name not in gallery:
                    raise DataError(
                        f"class '{name}' of the queries has no image in the gallery: add one, or remove it"
                    )
            elif len(entries) < 2:
                raise DataError(
                    f"class '{name}' of {split} has 1 image; 2 or more are needed: add images or remove it"
                )
    return splits


def _refuse_alike(splits: Splits) -> None:
    """Raise `DataError` for names that some systems, and people, take for one: A and a, é and e with ´."""
    seen: dict[str, tuple[str, str]] = {}
    for split, classes in splits.items():
        for name in classes:
            plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
            other, its_split = seen.setdefault(plain, (name, split))
            if other != name:
                raise DataError(
                    f"classes {other!a} ({its_split}) and {name!a} ({split}) differ only by case or by how "
                    "Unicode spells their letters: rename one, or move its images into the other"
                )
