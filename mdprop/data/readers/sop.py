"""Stanford Online Products (Song et al., 2016): 22,634 products of an online shop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from mdprop.data.readers.download import Archive
from mdprop.data.readers.entries import Splits, by_class
from mdprop.data.readers.lists import Listed, listed_entries, malformed, read_rows
from mdprop.data.readers.published import Counts, Published, PublishedSettings, read_published
from mdprop.data.readers.tree import first_folder_with
from mdprop.errors import DataError

COLUMNS = "image_id class_id super_class_id path"
LISTS = {"train": "Ebay_train.txt", "test": "Ebay_test.txt"}
SOP = Published(
    name="Stanford Online Products",
    counts={"train": Counts(11_318, 59_551), "test": Counts(11_316, 60_502)},
    layout="Stanford_Online_Products.zip as it is extracted: Ebay_train.txt, Ebay_test.txt, bicycle_final/",
    source="from https://cvgl.stanford.edu/projects/lifted_struct",
    archive=Archive(
        url="http://ftp.cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip",
        md5="7f73d41a2f44250d4779881525aea32e",
        size=3_083_860_082,
    ),
)


class Settings(PublishedSettings):
    reader: Literal["sop"]


def read(settings: Settings, key: str) -> Splits:
    """The products of Ebay_train.txt and of Ebay_test.txt; a class is named by its class_id.

    root: Stanford_Online_Products or the folder that holds it.
    """
    return read_published(settings, key, SOP, _splits)


def _splits(root: Path) -> Splits:
    bases = (first_folder_with(name, root, "Stanford_Online_Products") for name in LISTS.values())
    base = next(filter(None, bases), None)
    if base is None:
        raise DataError(f"{root} is no {SOP.name}: put there {SOP.layout}")
    return {
        split: by_class(listed_entries(base / name, base, _listed(base / name)))
        for split, name in LISTS.items()
    }


def _listed(file: Path) -> Iterator[Listed]:
    for number, fields in read_rows(file, COLUMNS, [COLUMNS]):
        if not fields[1].isdecimal():
            raise malformed(file, number, " ".join(fields), COLUMNS)
        yield Listed(number, f"{int(fields[1]):05}", fields[3])
