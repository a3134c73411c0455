"""Data sets with a folder a class."""

from __future__ import annotations

import os
from pathlib import Path

from mdprop.data.readers.entries import Classes, Entry, Splits, as_text, by_class, halve, images_below
from mdprop.errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
LAYOUTS = "train/<class>/ and test/<class>/, or images/<class>/, or <class>/"


def read_folder(root: str | Path, key: str = "datasets.<name>") -> Splits:
    """The images below `root`, in the first of these layouts that is there:

    root/train/<class>/, root/test/<class>/ and, where there is one, root/val/<class>/;
    root/images/<class>/: the first half of the classes, sorted by name, trains, the second half
        tests (an odd one tests);
    root/<class>/: likewise.

    key: the settings' place in params.yaml, for messages.

    Returns the classes of "train", "test" and, where it has a folder, "val".
    Images in folders below a class's belong to the class; links are followed; hidden files and
    whatever has no image's extension (`EXTENSIONS`, in any case) are passed over.
    Raises `DataError` where the root or its classes are missing, or a class has fewer than two images.
    """
    root = existing_root(root, key)
    if any(class_folders(root / split) for split in ("train", "test")):
        splits = [s for s in ("train", "val", "test") if s != "val" or (root / s).is_dir()]
        return {split: _classes(root / split, root) for split in splits}
    parent = root / "images" if class_folders(root / "images") else root
    classes = _classes(parent, root)
    if len(classes) < 4:
        raise DataError(
            f"{parent} has {len(classes)} class folder(s); 4 or more are needed, half of them to train and "
            f"half to test: add classes, or point {key}.root at another folder"
        )
    train, test = halve(classes)
    return {"train": train, "test": test}


def is_absent(root: Path) -> bool:
    """Whether nothing is there, or a folder without anything but hidden files."""
    return not root.exists() or (root.is_dir() and not _list(root))


def existing_root(root: str | Path, key: str, layouts: str = LAYOUTS) -> Path:
    """The root as a path; `DataError` says what to put there where it is missing."""
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is no folder" if path.exists() else "does not exist"
        raise DataError(f"{key}.root = {root} {what}: put images there as {layouts}, or change the key")
    return path


def class_folders(parent: Path) -> list[Path]:
    """The folders in `parent` by name, without the hidden ones; none where there is no `parent`."""
    if not parent.is_dir():
        return []
    return sorted((f for f in _list(parent) if f.is_dir()), key=lambda folder: folder.name)


def class_entries(folder: Path, root: Path, class_name: str) -> list[Entry]:
    """The images in and below one class's folder, by path; `DataError` for fewer than two."""
    entries = image_entries(folder, root, class_name)
    if len(entries) < 2:
        raise DataError(
            f"class folder {folder} has {len(entries) or 'no'} image(s); 2 or more are needed "
            f"({' '.join(EXTENSIONS)}): add images, or remove the folder"
        )
    return entries


def image_entries(folder: Path, root: Path, class_name: str) -> list[Entry]:
    """The images in and below a folder, by path; their `name` is relative to `root`."""
    source = images_below(root)
    paths = sorted(_images(folder, set()))
    return [Entry(class_name, path.relative_to(root).as_posix(), source) for path in paths]


def _classes(parent: Path, root: Path) -> Classes:
    folders = class_folders(parent)
    if not folders:
        what = "holds no folder a class" if parent.is_dir() else "does not exist"
        if parent.is_dir() and any(map(_is_image, _list(parent))):
            what = "holds images, but no folder a class"
        raise DataError(f"{parent} {what}: sort the images into {LAYOUTS}, below {root}")
    return by_class(
        entry for folder in folders for entry in class_entries(folder, root, as_text(folder.name))
    )


def _images(folder: Path, seen: set[str]) -> list[Path]:
    """The images in and below a folder; one that links lead to twice is visited once."""
    real = os.path.realpath(folder)
    if real in seen:
        return []
    seen.add(real)
    found: list[Path] = []
    for path in _list(folder):
        if path.is_dir():
            found += _images(path, seen)
        elif _is_image(path):
            found.append(path)
    return found


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not path.is_dir()


def _list(folder: Path) -> list[Path]:
    """What is in a folder, without hidden names and the litter of macOS's zip files."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}): check its permissions") from None
