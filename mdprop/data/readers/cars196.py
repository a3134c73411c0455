"""CARS196 (Krause et al., 2013): 196 models of cars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mdprop.data.readers.entries import Splits, by_class, halve
from mdprop.data.readers.lists import Listed, listed_entries
from mdprop.data.readers.published import Counts, Published, PublishedSettings, read_published
from mdprop.data.readers.tree import class_folders, first_folder_with, named, read_folders
from mdprop.errors import DataError, one_line

ANNOTATIONS = "cars_annos.mat"
# Of the release in two folders: the images, and the files that name their classes.
HALVES = {"cars_train": "cars_train_annos.mat", "cars_test": "cars_test_annos_withlabels.mat"}
DEVKITS = ("devkit", "car_devkit/devkit")
UNLABELLED = "cars_test_annos.mat"
NAMES = "cars_meta.mat"
CARS196 = Published(
    name="CARS196",
    counts={"train": Counts(98, 8_054), "test": Counts(98, 8_131)},
    layout=(
        f"car_ims/ and {ANNOTATIONS}, or cars_train/, cars_test/ and devkit/, or <class>/, images/<class>/, "
        "or train/<class>/ and test/<class>/"
    ),
    source=(
        "where it is mirrored, as Stanford does not serve it any more, such as "
        "https://www.kaggle.com/datasets/jutrera/stanford-car-dataset-by-classes-folder"
    ),
)


class Settings(PublishedSettings):
    reader: Literal["cars196"]


class Annotated(NamedTuple):
    """An image in a file of annotations: its path below the base folder and its class, from 1 on."""

    path: str
    number: int


def read(settings: Settings, key: str) -> Splits:
    """The first 98 classes train, the last 98 test (of a part: half and half).

    Layouts: car_ims/ and cars_annos.mat (classes by number), in `root` or root/cars196; cars_train/,
    cars_test/ and devkit/ (likewise), in `root`, root/cars196 or root/stanford_cars; or a folder a class
    (classes by name): in `root`, in root/images, or in train and test below `root`, root/car_data or
    root/car_data/car_data. The splits of train and test there are made for classification, with every
    class in both: they are merged.
    """
    return read_published(settings, key, CARS196, _splits)


def _splits(root: Path) -> Splits:
    bases = (first_folder_with(name, root, "cars196", "stanford_cars") for name in HALVES)
    halves = next(filter(None, bases), None)
    base = first_folder_with(ANNOTATIONS, root, "cars196")
    if base is not None and (halves is None or (base / "car_ims").is_dir()):
        file = base / ANNOTATIONS
        content = _matlab(file)
        return _by_number(base, [(file, _annotated(content, file, "relative_im_path"))], _names(content))
    if halves is not None:
        return _in_halves(halves)
    parts = (
        [folder / part for part in ("train", "test")]
        for folder in (root, root / "car_data", root / "car_data" / "car_data")
    )
    candidates = (*parts, [root / "images"], [root])
    parents = next((found for found in candidates if any(map(class_folders, found))), [])
    folders = [folder for parent in parents for folder in class_folders(parent)]
    classes = read_folders(root, {"all": named(folders)})["all"]
    if not classes:
        raise DataError(f"{root} is no {CARS196.name}: put there {CARS196.layout}")
    train, test = halve(classes)
    return {"train": train, "test": test}


def _in_halves(base: Path) -> Splits:
    """The release with a folder of images for each half of the split for classification."""
    lists = []
    for half, name in HALVES.items():
        folder = first_folder_with(name, base, *DEVKITS)
        if folder is None:
            hint = f" ({UNLABELLED} has no classes)" if half == "cars_test" else ""
            raise DataError(
                f"{base} is {CARS196.name} in {' and '.join(HALVES)}, but devkit/{name}, which has the "
                f"classes of the images in {half}, is missing{hint}: put it there"
            )
        # On Kaggle the folder of images lies in one of the same name.
        images = f"{half}/{half}/" if (base / half / half).is_dir() else f"{half}/"
        file = folder / name
        lists.append((file, _annotated(_matlab(file), file, "fname", images)))
    devkit = first_folder_with(NAMES, base, *DEVKITS)
    return _by_number(base, lists, _names(_matlab(devkit / NAMES)) if devkit else [])


def _by_number(base: Path, lists: Sequence[tuple[Path, Sequence[Annotated]]], given: Sequence[str]) -> Splits:
    """The lower half of the class numbers, and the upper; `given`: the names of the classes from 1 on."""
    present = sorted({image.number for _, images in lists for image in images})
    names = {number: f"{number:03}" for number in present} | dict(enumerate(given, 1))
    first = set(present[: len(present) // 2])
    entries = [
        (image.number in first, entry)
        for file, images in lists
        for image, entry in zip(
            images, listed_entries(file, base, _listed(images, names), "annotation"), strict=True
        )
    ]
    return {
        "train": by_class(entry for trains, entry in entries if trains),
        "test": by_class(entry for trains, entry in entries if not trains),
    }


def _listed(images: Sequence[Annotated], names: dict[int, str]) -> Iterator[Listed]:
    for place, image in enumerate(images, 1):
        yield Listed(place, names[image.number], image.path)


def _annotated(content: dict[str, Any], file: Path, field: str, folder: str = "") -> list[Annotated]:
    """The images of a file of annotations, whose `field` has their paths below `folder`."""
    import numpy as np

    try:
        annotations = np.atleast_1d(content["annotations"])
        paths = [f"{folder}{path}" for path in annotations[field]]
        return [Annotated(p, int(n)) for p, n in zip(paths, annotations["class"], strict=True)]
    except (KeyError, ValueError, TypeError, IndexError):
        raise DataError(
            f"{file} has no annotations with the fields {field} and class: get the file again"
        ) from None


def _names(content: dict[str, Any]) -> list[str]:
    import numpy as np

    return [str(name) for name in np.atleast_1d(content.get("class_names", []))]


def _matlab(file: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    if not file.is_file():
        raise DataError(f"{file} is no regular file: get the file again")
    try:
        content: dict[str, Any] = loadmat(str(file), squeeze_me=True)
    except Exception as error:  # SciPy's parser raises many kinds on broken files
        raise DataError(f"{file} cannot be read ({one_line(error)}): get the file again") from None
    return content
