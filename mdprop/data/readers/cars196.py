"""CARS196 (Krause et al., 2013): 196 models of cars."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from mdprop.data.readers.entries import Splits, as_text, by_class, halve
from mdprop.data.readers.lists import Listed, listed_entries
from mdprop.data.readers.published import Counts, Published, PublishedSettings, read_published
from mdprop.data.readers.tree import class_folders, first_folder_with, image_entries
from mdprop.errors import DataError, one_line

ANNOTATIONS = "cars_annos.mat"
CARS196 = Published(
    name="CARS196",
    counts={"train": Counts(98, 8_054), "test": Counts(98, 8_131)},
    layout=f"car_ims/ and {ANNOTATIONS}, or <class>/, images/<class>/, or train/<class>/ and test/<class>/",
    source=(
        "where it is mirrored, as Stanford does not serve it any more, such as "
        "https://www.kaggle.com/datasets/jutrera/stanford-car-dataset-by-classes-folder"
    ),
)


class Settings(PublishedSettings):
    reader: Literal["cars196"]


def read(settings: Settings, key: str) -> Splits:
    """The first 98 classes train, the last 98 test (of a part: half and half).

    Layouts: car_ims/ and cars_annos.mat (the original release; classes by number), in `root` or
    root/cars196; or a folder a class (classes by name): in `root`, in root/images, or in train and
    test below `root`, root/car_data or root/car_data/car_data. The split of train and test there is
    made for classification, with every class in both: they are merged.
    """
    return read_published(settings, key, CARS196, _splits)


def _splits(root: Path) -> Splits:
    base = first_folder_with(ANNOTATIONS, root, "cars196")
    if base is not None:
        return _by_annotations(base)
    parts = (
        [folder / part for part in ("train", "test")]
        for folder in (root, root / "car_data", root / "car_data" / "car_data")
    )
    candidates = (*parts, [root / "images"], [root])
    parents = next((found for found in candidates if any(map(class_folders, found))), [])
    classes = by_class(
        entry
        for parent in parents
        for folder in class_folders(parent)
        for entry in image_entries(folder, root, as_text(folder.name))
    )
    if not classes:
        raise DataError(f"{root} is no {CARS196.name}: put there {CARS196.layout}")
    train, test = halve(classes)
    return {"train": train, "test": test}


def _by_annotations(base: Path) -> Splits:
    file = base / ANNOTATIONS
    paths, numbers, names = _annotations(file)
    listed = (Listed(i, names[n], p) for i, (p, n) in enumerate(zip(paths, numbers, strict=True), 1))
    present = sorted(set(numbers))
    first = set(present[: len(present) // 2])
    entries = list(zip(numbers, listed_entries(file, base, listed, unit="annotation"), strict=True))
    return {
        "train": by_class(entry for number, entry in entries if number in first),
        "test": by_class(entry for number, entry in entries if number not in first),
    }


def _annotations(file: Path) -> tuple[list[str], list[int], dict[int, str]]:
    """The path and the class of each image, and the name of each class, which counts from 1."""
    import numpy as np
    from scipy.io import loadmat

    try:
        content: dict[str, Any] = loadmat(str(file), squeeze_me=True)
    except Exception as error:  # SciPy's parser raises many kinds on broken files
        raise DataError(f"{file} cannot be read ({one_line(error)}): get the file again") from None
    try:
        annotations = np.atleast_1d(content["annotations"])
        paths = [str(path) for path in annotations["relative_im_path"]]
        numbers = [int(number) for number in annotations["class"]]
        given = [str(name) for name in np.atleast_1d(content.get("class_names", []))]
    except (KeyError, ValueError, TypeError, IndexError):
        raise DataError(
            f"{file} has no annotations with the fields relative_im_path and class: get the file again"
        ) from None
    names = {number: f"{number:03}" for number in numbers} | dict(enumerate(given, 1))
    return paths, numbers, names
