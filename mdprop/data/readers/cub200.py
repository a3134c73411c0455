"""CUB-200-2011 (Wah et al., 2011): 200 kinds of birds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from mdprop.data.readers.download import Archive
from mdprop.data.readers.entries import Splits, by_class, halve
from mdprop.data.readers.lists import Listed, listed_entries, malformed, read_rows
from mdprop.data.readers.published import Counts, Published, PublishedSettings, read_published
from mdprop.data.readers.tree import class_folders, first_folder_with, named, read_folders
from mdprop.errors import DataError

CUB200 = Published(
    name="CUB-200-2011",
    counts={"train": Counts(100, 5_864), "test": Counts(100, 5_924)},
    layout="CUB_200_2011.tgz as it is extracted: images/<class>/ and images.txt",
    source="from https://data.caltech.edu/records/65de6-vp158",
    archive=Archive(
        url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        md5="97eceeb196236b17998738112f37df78",
        size=1_150_585_339,
    ),
)


class Settings(PublishedSettings):
    reader: Literal["cub200"]


def read(settings: Settings, key: str) -> Splits:
    """The first 100 classes by name train, the last 100 test (of a part: half and half).

    root: CUB_200_2011 or the folder that holds it. Where there is an images.txt its images are
    taken, each of which must be there, else those in images/<class>/.
    """
    return read_published(settings, key, CUB200, _splits)


def _splits(root: Path) -> Splits:
    base = first_folder_with("images", root, "CUB_200_2011")
    if base is None:
        raise DataError(f"{root} is no {CUB200.name}: put there {CUB200.layout}")
    if (base / "images.txt").exists():
        classes = by_class(listed_entries(base / "images.txt", base, _listed(base / "images.txt")))
    else:
        classes = read_folders(base, {"all": named(class_folders(base / "images"))})["all"]
    train, test = halve(classes)
    return {"train": train, "test": test}


def _listed(file: Path) -> Iterator[Listed]:
    for number, (identity, path) in read_rows(file, "<id> <class>/<file>"):
        class_name, slash, _ = path.partition("/")
        if not slash:
            raise malformed(file, number, f"{identity} {path}", "<id> <class>/<file>")
        yield Listed(number, class_name, f"images/{path}")
