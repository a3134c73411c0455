"""In-Shop Clothes Retrieval (Liu et al., 2016, part of DeepFashion): 7,982 items of clothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from mdprop.data.readers.entries import Splits, by_class
from mdprop.data.readers.lists import Listed, listed_entries, malformed, read_rows
from mdprop.data.readers.published import Counts, Published, PublishedSettings, read_published
from mdprop.data.readers.tree import first_folder_with
from mdprop.errors import DataError

LIST = "list_eval_partition.txt"
COLUMNS = "image_name item_id evaluation_status"
SPLIT_OF = {"train": "train", "query": "test", "gallery": "gallery"}
INSHOP = Published(
    name="In-Shop Clothes",
    counts={
        "train": Counts(3_997, 25_882),
        "test": Counts(3_985, 14_218),
        "gallery": Counts(3_985, 12_612),
    },
    layout=f"{LIST} (or below Eval/ or Anno/) and the images, img/... (or below Img/)",
    source="by request from https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
)


class Settings(PublishedSettings):
    reader: Literal["inshop"]


def read(settings: Settings, key: str) -> Splits:
    """The items of list_eval_partition.txt: "train"; the queries as "test"; and "gallery"."""
    return read_published(settings, key, INSHOP, _splits)


def _splits(root: Path) -> Splits:
    folder = first_folder_with(LIST, root, "Eval", "Anno")
    if folder is None:
        raise DataError(f"{root} is no {INSHOP.name}: put there {INSHOP.layout}")
    file = folder / LIST
    listed = list(_listed(file))
    images = [image for _, image in listed]
    base = next((b for b in (root, root / "Img") if any((b / i.path).is_file() for i in images)), root)
    entries = list(zip((split for split, _ in listed), listed_entries(file, base, images), strict=True))
    return {s: by_class(entry for split, entry in entries if split == s) for s in INSHOP.counts}


def _listed(file: Path) -> Iterator[tuple[str, Listed]]:
    """(split, image) of each row."""
    rows = 0
    for number, (path, item, status) in read_rows(file, COLUMNS, ["*", COLUMNS]):
        if status not in SPLIT_OF:
            raise malformed(file, number, f"{path} {item} {status}", f"{COLUMNS} ({', '.join(SPLIT_OF)})")
        rows += 1
        yield SPLIT_OF[status], Listed(number, item, path)
    with file.open(encoding="utf-8-sig") as lines:
        count = lines.readline().strip()
    if count != str(rows):
        raise DataError(
            f"{file}, line 1: '{count}' images are announced, {rows} listed: extract the file again"
        )
