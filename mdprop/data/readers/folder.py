"""Data sets of your own, with a folder a class."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mdprop.data.readers.entries import Splits, halve
from mdprop.data.readers.settings import ImageSettings
from mdprop.data.readers.tree import (
    class_folders,
    existing_root,
    is_image,
    named,
    read_folders,
    visible,
)
from mdprop.errors import DataError
from mdprop.settings import FilePath

LAYOUTS = "train/<class>/ and test/<class>/, or images/<class>/, or <class>/"


class Settings(ImageSettings):
    reader: Literal["folder"]
    root: FilePath


def read(settings: Settings, key: str) -> Splits:
    """The images below `root`, in the first of these layouts that is there:

    root/train/<class>/, root/test/<class>/ and, where there is one, root/val/<class>/;
    root/images/<class>/: the first half of the classes, sorted by name, trains, the second half
        tests (an odd one tests);
    root/<class>/: likewise.

    Images in folders below a class's belong to the class; links are followed as `read_folders` says;
    hidden files, systems' litter and whatever has no image's extension (`EXTENSIONS`, in any case) are
    passed over.
    Raises `DataError` where the root or its classes are missing, or a class has fewer than two images.
    """
    root = existing_root(settings.root, key, LAYOUTS)
    if is_split(root):
        return read_split(root)
    parent = root / "images" if class_folders(root / "images") else root
    classes = read_folders(root, {"all": named(_folders(parent, root))}, fewest=2)["all"]
    if len(classes) < 4:
        raise DataError(
            f"{parent} has {len(classes)} class folder(s); 4 or more are needed, half of them to train and "
            f"half to test: add classes, or point {key}.root at another folder"
        )
    train, test = halve(classes)
    return {"train": train, "test": test}


def is_split(root: Path) -> bool:
    """Whether there are classes in root/train or root/test."""
    return any(class_folders(root / split) for split in ("train", "test"))


def read_split(root: Path) -> Splits:
    """The classes in root/train, root/test and, where there is one, root/val."""
    splits = [s for s in ("train", "val", "test") if s != "val" or (root / s).is_dir()]
    return read_folders(root, {split: named(_folders(root / split, root)) for split in splits}, fewest=2)


def _folders(parent: Path, root: Path) -> list[Path]:
    folders = class_folders(parent)
    if not folders:
        what = "holds no folder a class" if parent.is_dir() else "does not exist"
        if parent.is_dir() and any(map(is_image, visible(parent))):
            what = "holds images, but no folder a class"
        raise DataError(f"{parent} {what}: sort the images into {LAYOUTS}, below {root}")
    return folders
