"""Folders of images on disk."""

from __future__ import annotations

import os
from pathlib import Path

from mdprop.data.readers.entries import Entry, images_below
from mdprop.errors import DataError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")


def is_absent(root: Path) -> bool:
    """Whether nothing is there, or a folder without anything but hidden files."""
    return not root.exists() or (root.is_dir() and not visible(root))


def existing_root(root: str | Path, key: str, layouts: str) -> Path:
    """The root as a path; `DataError` says what to put there where it is missing."""
    path = Path(root).expanduser()
    if not path.is_dir():
        what = "is no folder" if path.exists() else "does not exist"
        raise DataError(f"{key}.root = {root} {what}: put images there as {layouts}, or change the key")
    return path


def first_folder_with(name: str, root: Path, *below: str) -> Path | None:
    """The first of `root` and its folders `below` that holds `name`."""
    return next((folder for folder in (root, *map(root.joinpath, below)) if (folder / name).exists()), None)


def class_folders(parent: Path) -> list[Path]:
    """The folders in `parent` by name, without the hidden ones; none where there is no `parent`."""
    if not parent.is_dir():
        return []
    return sorted((f for f in visible(parent) if f.is_dir()), key=lambda folder: folder.name)


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


def is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not path.is_dir()


def visible(folder: Path) -> list[Path]:
    """What is in a folder, without hidden names and the litter of macOS's zip files."""
    try:
        return [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}): check its permissions") from None


def _images(folder: Path, seen: set[str]) -> list[Path]:
    """The images in and below a folder; one that links lead to twice is visited once."""
    real = os.path.realpath(folder)
    if real in seen:
        return []
    seen.add(real)
    found: list[Path] = []
    for path in visible(folder):
        if path.is_dir():
            found += _images(path, seen)
        elif is_image(path):
            found.append(path)
    return found
