"""Grocery Store (Klasson et al., 2019): 81 products, photographed in shops."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mdprop.data.readers.entries import Splits
from mdprop.data.readers.published import Counts, Published, PublishedSettings, read_published
from mdprop.data.readers.tree import class_folders, named, read_folders
from mdprop.errors import DataError

GROCERY = Published(
    name="Grocery Store",
    counts={"train": Counts(41, 3_051), "test": Counts(40, 2_370)},
    layout="a folder a product, numbered as in its classes.csv: images/000.Golden-Delicious/",
    source="from https://github.com/marcusklasson/GroceryStoreDataset",
)


class Settings(PublishedSettings):
    reader: Literal["grocery"]


def read(settings: Settings, key: str) -> Splits:
    """The products in images/, by name: the first 41 train, the last 40 test (of a part: half and half).

    Theirs is a split for classification: every product is in each part. All parts are taken together.
    """
    return read_published(settings, key, GROCERY, _splits)


def _splits(root: Path) -> Splits:
    folders = class_folders(root / "images")
    if not folders:
        raise DataError(f"{root} is no {GROCERY.name}: put there {GROCERY.layout}")
    middle = (len(folders) + 1) // 2
    return read_folders(root, {"train": named(folders[:middle]), "test": named(folders[middle:])})
